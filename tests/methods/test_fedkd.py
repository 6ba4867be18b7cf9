"""FedKD: who teaches whom, what travels, and that everybody ends up with the same mentee."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from federations import IMAGES, ROWS, SMALL, STILL, WIDE, Federation, equal, federation, snapshot
from torch import Tensor, nn

from fedkd.config import ModelSpec
from fedkd.errors import ConfigError
from fedkd.exchange import low_rank
from fedkd.exchange.codec import encode
from fedkd.exchange.messages import Broadcast, group
from fedkd.learning.teacher_statistics import with_features
from fedkd.methods.fedkd import mutual

MENTEE = {"name": "mlp", "hidden": [9, 8]}


def built(shape: tuple[int, ...] = IMAGES, **changes: Any) -> Federation:
    method = {"name": "fedkd", **changes.pop("method", {})}
    changes = {"models": [SMALL, WIDE], "student": MENTEE, "rounds": 3, **changes}
    return federation(method, shape, **changes)


def test_gradients_are_those_of_two_losses_with_a_constant_partner() -> None:
    torch.manual_seed(0)
    mentor, mentee = (nn.Sequential(nn.Linear(5, w), nn.ReLU(), nn.Linear(w, 3)) for w in (7, 4))
    match = nn.Linear(4, 7, bias=False)
    x, y = torch.randn(6, 5), torch.tensor([0, 1, 2, 0, 1, 2])

    def oracle(own: nn.Module, other: nn.Module, own_is_mentor: bool) -> list[Tensor]:
        """The paper's loss of one model, its partner frozen, from the formula."""
        z, f = with_features(own, x)
        with torch.no_grad():
            z_other, f_other = with_features(other, x)
            ce = F.cross_entropy(z_other, y)
        p, q = z_other.softmax(1), z.softmax(1)
        kl = (p * (p.log() - q.log())).sum() / len(x)  # a sum over classes, a mean over samples
        pair = (f, f_other) if own_is_mentor else (f_other, f)
        gap = (pair[0] - pair[1] @ match.weight.T).square().mean()
        task = F.cross_entropy(z, y)
        total = task + (kl + 0.7 * gap) / (task.item() + ce.item())
        return list(torch.autograd.grad(total, list(own.parameters())))

    shown = with_features(mentor, x), with_features(mentee, x)
    loss = mutual(*shown, y, match, hidden=0.7)
    for own, other, first in ((mentor, mentee, True), (mentee, mentor, False)):
        found = torch.autograd.grad(loss, list(own.parameters()), retain_graph=True)
        torch.testing.assert_close(list(found), oracle(own, other, first))


def test_two_models_that_are_sure_and_right_have_nothing_left_to_teach() -> None:
    z, y = 200 * torch.eye(3), torch.arange(3)
    features = torch.ones(3, 2)
    loss = mutual((z, features), (z, features), y, nn.Identity())
    assert loss.item() == 0


def rounds(fed: Federation, cohorts: list[list[int]]) -> Broadcast:
    broadcast = fed.begin()
    for number, cohort in enumerate(cohorts, start=1):
        broadcast, _ = fed.round(number, broadcast, cohort)
    return broadcast


def test_clients_and_server_hold_the_same_mentee_bitwise_round_after_round() -> None:
    fed = built()
    broadcast = rounds(fed, [[0, 1, 2]] * 2)
    before = snapshot(fed.student)
    assert not any(name.startswith("model/") for name in broadcast.to("any", 1))
    for client in range(3):
        fed.ask(client, 3, broadcast)
        assert equal(group("mentee", fed.states[client]), before)


def test_a_client_that_missed_a_round_gets_the_whole_mentee_and_catches_up() -> None:
    fed = built()
    broadcast = rounds(fed, [[0, 1, 2], [0, 2]])
    assert set(broadcast.by_client) == {1}
    fed.ask(1, 3, broadcast)
    assert equal(group("mentee", fed.states[1]), snapshot(fed.student))


def test_who_was_not_asked_in_the_next_round_is_sent_nothing() -> None:
    fed = federation("fedkd", ROWS, (9,) * 6, participation=0.5, rounds=9)
    broadcast = rounds(fed, [fed.setting.cohort(1)])
    assert set(broadcast.by_client) == set(fed.setting.cohort(2)) - set(fed.setting.cohort(1))


def test_with_all_the_energy_and_ranks_that_fit_the_student_is_the_mean_by_example_count() -> None:
    fed = built((60,), student={"name": "mlp", "hidden": []}, method={"energy_start": 1.0})
    begin = fed.begin()
    assert low_rank.most_rank((3, 60)) == 2  # of three: the last singular value is lost
    uploads = {c: fed.wire(c, fed.ask(c, 1, begin)) for c in range(3)}
    fed.method.server(fed.server_context(), uploads)
    start = group("model", begin.common)["classifier.weight"].double()
    sizes = torch.tensor([24, 16, 8]).double()
    updates = [upload["factors/classifier.weight"].double() for upload in uploads.values()]
    moved = sum(
        n / sizes.sum() * (rows[:, :3].T @ rows[:, 3:])
        for n, rows in zip(sizes, updates, strict=True)
    )
    u, s, vh = torch.linalg.svd(moved, full_matrices=False)
    expected = start + (u[:, :2] * s[:2]) @ vh[:2]
    torch.testing.assert_close(fed.student.state_dict()["classifier.weight"], expected.float())
    bias = torch.stack([u["whole/classifier.bias"] for u in uploads.values()]).double()
    mean = (bias * sizes[:, None] / sizes.sum()).sum(0).float()
    torch.testing.assert_close(fed.student.state_dict()["classifier.bias"], mean)


@pytest.mark.parametrize(("round", "energy"), [(1, 0.5), (2, 0.7), (3, 0.9)])
def test_the_share_of_the_energy_grows_from_round_to_round_both_ways(
    monkeypatch: pytest.MonkeyPatch, round: int, energy: float
) -> None:
    asked: list[float] = []
    factorise = low_rank.factorise

    def watched(weight: Tensor, *, energy: float) -> Tensor:
        asked.append(energy)
        return factorise(weight, energy=energy)

    monkeypatch.setattr(low_rank, "factorise", watched)
    fed = built(method={"energy_start": 0.5, "energy_end": 0.9})
    fed.round(round, fed.begin())
    assert len(asked) == 3 * (3 + 1)  # three matrices of each client, and of the server
    assert asked == pytest.approx([energy] * len(asked))


def test_updates_take_fewer_bytes_than_models() -> None:
    fed = built(student=WIDE)
    whole = len(encode(group("model", fed.begin().common)))
    broadcast, _ = fed.round(1, fed.begin())
    assert len(encode(broadcast.to("any", 0))) < 0.5 * whole


def test_the_mentor_stays_at_home_and_the_matrix_between_them_too() -> None:
    fed = built()
    upload = fed.ask(0, 1, fed.begin())
    assert {name.split("/")[0] for name in upload.values} == {"factors", "whole", "count"}
    assert group("match", fed.states[0])["weight"].shape == (12, 8)
    student = fed.setting.model_specs(ModelSpec.model_validate(MENTEE))
    assert len(upload.values) == len(student) + 1


def test_a_client_with_one_sample_takes_part() -> None:
    fed = federation("fedkd", IMAGES, (1, 20, 20), models=["dense-cnn"], student="dense-cnn")
    fed.round(1, fed.begin())
    assert all(tensor.isfinite().all() for tensor in snapshot(fed.student).values())


def test_training_that_changes_nothing_sends_next_to_nothing() -> None:
    fed = built(training={**STILL, "learning_rate": 1e-30}, models=[SMALL])
    upload = fed.ask(0, 1, fed.begin())
    rows = upload.values["factors/hidden1.weight"].data
    assert rows.shape[0] == 0 or rows.abs().max() < 1e-6


def test_a_model_without_a_linear_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match="model 'Sequential' has no linear layer"):
        with_features(nn.Sequential(nn.Flatten()), torch.zeros(3, 5))


def test_an_update_that_overflows_is_found_before_it_is_averaged() -> None:
    fed = built()
    upload = fed.wire(0, fed.ask(0, 1, fed.begin()))
    x = fed.test.x[:4]
    answers = fed.method.probe(fed.setting, 0, upload, x)
    assert answers is not None
    assert answers.isfinite().all()
    rows = torch.full_like(upload["factors/hidden2.weight"], low_rank.LARGEST)
    huge = {**upload, "whole/hidden1.bias": torch.full((9,), 3e38), "factors/hidden2.weight": rows}
    answers = fed.method.probe(fed.setting, 0, huge, x)
    assert answers is not None
    assert not answers.isfinite().all()


def test_what_mentees_say_stands_on_the_student_as_it_is() -> None:
    """An update means nothing on another model than the round's, by which liars are found."""
    fed = built()
    broadcast, _ = fed.round(1, fed.begin())
    upload = fed.wire(0, fed.ask(0, 2, broadcast))
    learned = {name: each.clone() for name, each in fed.student.state_dict().items()}
    x = fed.test.x[:4]
    said = fed.method.said(fed.server_context(), {0: upload, 1: upload}, lambda: x)
    assert said is not None
    fed.student.load_state_dict(_with(learned, upload))
    expected = fed.student.eval()(x).detach()
    torch.testing.assert_close(said, torch.stack([expected, expected]))


def _with(before: dict[str, Tensor], update: dict[str, Tensor]) -> dict[str, Tensor]:
    """Factors multiplied and added; what is no matrix is sent whole."""
    after = {}
    for name, each in before.items():
        if f"factors/{name}" in update:
            after[name] = each + low_rank.multiply(update[f"factors/{name}"], tuple(each.shape))
        else:
            after[name] = update[f"whole/{name}"]
    return after
