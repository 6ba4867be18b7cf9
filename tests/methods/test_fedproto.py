"""FedProto: prototypes by definition, classes that nobody holds, and widths that do not fit."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from federations import CLASSES, ROWS, SMALL, STILL, WIDE, Federation, federation, samples, tensors
from torch import Tensor

from fedkd.data.types import Samples
from fedkd.errors import ConfigError
from fedkd.exchange.gate import release
from fedkd.exchange.messages import Broadcast, Upload
from fedkd.learning.evaluate import evaluating
from fedkd.learning.teacher_statistics import with_features
from fedkd.methods.fedproto import class_means, distance_logits, prototype_loss, shortened

WIDTH = 12
NARROW_BEFORE = {"name": "mlp", "hidden": [7, WIDTH]}


def built(classes: list[list[int]] | None = None, **changes: Any) -> Federation:
    """Three clients; `classes` says which of their samples they keep, by label."""
    method = {"name": "fedproto", **changes.pop("method", {})}
    fed = federation(method, **{"models": [SMALL, NARROW_BEFORE], "rounds": 3, **changes})
    for client, held in enumerate(classes or []):
        data = samples(30, ROWS, 10 + client)
        fed.data[client] = data.subset(torch.isin(data.y, torch.tensor(held)).nonzero().flatten())
    return fed


def shown(fed: Federation, client: int, x: Tensor) -> Tensor:
    """The features of a client's teacher, as it is now."""
    teacher = fed.client_context(client).teacher
    with evaluating(teacher), torch.no_grad():
        return with_features(teacher, x)[1]


def ask(fed: Federation, client: int, broadcast: Broadcast, round: int = 1) -> Upload:
    return fed.ask(client, round, broadcast)


def test_a_client_sends_the_mean_feature_of_each_class_after_training() -> None:
    fed = built()
    for client in range(3):
        sent = tensors(ask(fed, client, Broadcast()))
        data = fed.data[client]
        features = shown(fed, client, data.x)
        assert torch.equal(sent["counts"], torch.bincount(data.y, minlength=CLASSES))
        for c in range(CLASSES):
            torch.testing.assert_close(sent["prototypes"][c], features[data.y == c].mean(dim=0))


def test_answers_follow_the_rule_of_the_nearest_prototype() -> None:
    fed = built(training=STILL)
    sent = tensors(ask(fed, 0, Broadcast()))
    features = shown(fed, 0, fed.setting.proxy)
    oracle = torch.stack([-(features - p).square().sum(dim=1) for p in sent["prototypes"]], dim=1)
    torch.testing.assert_close(sent["logits"].float(), oracle, rtol=2e-3, atol=1e-4)


def test_where_there_is_a_global_prototype_it_is_what_counts() -> None:
    fed = built([[0, 1], [0], [0]], training=STILL)
    told = torch.full((CLASSES, WIDTH), 0.3)
    broadcast = Broadcast({"prototypes": told, "known": torch.tensor([True, False, False])})
    sent = tensors(ask(fed, 0, broadcast, round=2))
    features = shown(fed, 0, fed.setting.proxy)
    known = [told[0], sent["prototypes"][1]]
    oracle = torch.stack([-(features - p).square().sum(dim=1) for p in known], dim=1)
    oracle = torch.cat([oracle, oracle.amin(dim=1, keepdim=True)], dim=1)  # nobody knows class 2
    torch.testing.assert_close(sent["logits"].float(), oracle, rtol=2e-3, atol=1e-4)


def test_the_global_prototype_is_the_mean_of_all_samples_not_of_all_clients() -> None:
    fed = built([[0, 1], [0], [1]])
    uploads = {c: fed.wire(c, ask(fed, c, Broadcast())) for c in range(3)}
    returned = fed.method.server(fed.server_context(), uploads).common
    for c, holders in ((0, [0, 1]), (1, [0, 2])):
        counts = [int(uploads[k]["counts"][c]) for k in holders]
        assert counts[0] != counts[1]  # or a plain mean would be the same
        parts = [n * uploads[k]["prototypes"][c] for n, k in zip(counts, holders, strict=True)]
        torch.testing.assert_close(returned["prototypes"][c], sum(parts) / sum(counts))
    assert returned["known"].tolist() == [True, True, False]


def test_a_class_that_nobody_holds_never_becomes_a_prototype() -> None:
    fed = built(
        [[0, 1]] * 3, method={"student": {"epochs": 60, "learning_rate": 0.1}, "temperature": 0.1}
    )
    broadcast = fed.begin()
    for number in (1, 2, 3):
        broadcast, _ = fed.round(number, broadcast)
    assert broadcast.common["known"].tolist() == [True, True, False]
    of_them = fed.test.y < 2
    held = Samples(fed.test.x[of_them], fed.test.y[of_them])
    fed.test = held
    assert fed.accuracy() > 0.8


def test_a_class_whose_holders_are_away_keeps_its_prototype() -> None:
    fed = built([[0, 1], [2], [0]])
    first, _ = fed.round(1, fed.begin())
    second, _ = fed.round(2, first, cohort=[0, 2])
    assert second.common["known"].all()
    assert torch.equal(second.common["prototypes"][2], first.common["prototypes"][2])
    assert not torch.equal(second.common["prototypes"][0], first.common["prototypes"][0])


def test_the_loss_is_cross_entropy_and_the_distance_where_a_prototype_is_known() -> None:
    fed = built()
    model, data = fed.client_context(0).teacher, fed.data[0]
    prototypes, known = torch.randn(CLASSES, WIDTH), torch.tensor([True, False, True])
    found = prototype_loss(model, data.x, data.y, prototypes=prototypes, known=known, weight=0.5)
    logits, features = with_features(model, data.x)
    for i, c in enumerate(data.y.tolist()):
        expected = F.cross_entropy(logits[i : i + 1], data.y[i : i + 1])
        if known[c]:
            expected = expected + 0.5 * F.mse_loss(features[i], prototypes[c])
        torch.testing.assert_close(found[i], expected)


def test_training_pulls_features_to_the_prototypes() -> None:
    def distance(weight: float) -> float:
        fed = built(method={"weight": weight}, training={"epochs": 20, "learning_rate": 0.05})
        told = Broadcast({"prototypes": torch.ones(CLASSES, WIDTH), "known": torch.ones(3) > 0})
        ask(fed, 0, told)
        return float((shown(fed, 0, fed.data[0].x) - 1).square().mean())

    assert distance(5.0) < 0.5 * distance(0.0)


def test_a_client_with_one_sample_takes_part() -> None:
    fed = federation("fedproto", sizes=(1, 20, 20))
    sent = tensors(ask(fed, 0, Broadcast()))
    assert sent["counts"].sum() == 1
    # It knows one class, so to it all classes are equally far.
    assert (sent["logits"] == sent["logits"][:, :1]).all()
    fed.round(1, fed.begin())
    assert all(tensor.isfinite().all() for tensor in fed.student.state_dict().values())


def test_means_of_no_sample_are_zeros() -> None:
    means = class_means(torch.ones(2, 4), torch.tensor([1, 1]), 3)
    assert torch.equal(means, torch.tensor([[0.0], [1.0], [0.0]]).expand(3, 4))


def test_near_prototypes_are_told_apart_far_from_the_origin() -> None:
    prototypes = 1000 + torch.tensor([[0.0], [0.1]]).expand(2, 30)
    logits = distance_logits(prototypes, prototypes, torch.tensor([True, True]))
    torch.testing.assert_close(logits, -0.3 * (1 - torch.eye(2)), rtol=2e-3, atol=1e-6)


def test_the_receipts_say_what_prototypes_are() -> None:
    receipts = {r.field: r.provenance for r in release(ask(built(), 0, Broadcast()))}
    words = "class prototypes, the mean features of its records, no DP"
    assert receipts["prototypes"] == f"release: {words}"
    assert receipts["logits"] == f"post-processing of {words}"
    assert receipts["counts"] == "release: class counts, no DP"


def test_unlike_widths_are_refused_by_name() -> None:
    fed = federation("fedproto", models=[SMALL, WIDE])
    with pytest.raises(ConfigError) as caught:
        fed.method.check(fed.setting)
    assert "(mlp(hidden=[12]): 12, mlp(hidden=[16]): 16)" in str(caught.value)
    built().method.check(built().setting)


def test_the_student_learns_what_those_who_hold_a_class_say_of_it() -> None:
    fit = {"epochs": 400, "batch_size": 30, "optimiser": "adam", "learning_rate": 0.02}
    fed = built(method={"student": fit, "temperature": 2.0})
    uploads = {c: fed.wire(c, ask(fed, c, Broadcast())) for c in range(3)}
    rows = len(fed.setting.proxy)
    # Client 0 knows class 0, the others class 1, and each finds its own class in every picture.
    for client, (near, holds) in enumerate([(0, [9, 0, 0]), (1, [0, 9, 0]), (1, [0, 9, 0])]):
        logits = torch.full((rows, CLASSES), -8.0)
        logits[:, near] = 0
        uploads[client] |= {"logits": logits.half(), "counts": torch.tensor(holds)}
    fed.method.server(fed.server_context(), uploads)
    with evaluating(fed.student), torch.no_grad():
        said = fed.student(fed.setting.proxy).softmax(dim=1).mean(dim=0)
    torch.testing.assert_close(said, torch.tensor([0.5, 0.5, 0.0]), atol=0.03, rtol=0)


def test_a_client_that_flings_its_prototypes_away_moves_the_mean_by_ten_lengths_at_most() -> None:
    means = torch.randn(4, CLASSES, 6, generator=torch.Generator().manual_seed(3))
    held = torch.ones(4, CLASSES, dtype=torch.bool)
    assert torch.equal(shortened(means, held), means)
    flung = means.clone()
    flung[2] *= 1e4
    lengths = shortened(flung, held).norm(dim=2)
    assert torch.equal(shortened(flung, held)[[0, 1, 3]], means[[0, 1, 3]])
    assert lengths.max() <= 10.001 * flung.norm(dim=2).median()
    nothing = torch.zeros_like(means)
    assert torch.equal(shortened(nothing, ~held), nothing)
