"""FedGKT: whose features, which records, what comes back, and what leaks."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from federations import CLASSES, IMAGES, SMALL, STILL, Federation, equal, federation, tensors
from torch import Tensor

from fedkd.errors import ConfigError
from fedkd.exchange.gate import release
from fedkd.exchange.messages import Broadcast, group
from fedkd.learning import evaluate
from fedkd.models.split import split

RECORDS = 6
LAYER = "relu1"
STAY = {"epochs": 1, "learning_rate": 1e-12, "momentum": 0.0}


def built(sizes: tuple[int, ...] = (24, 16, 8), **changes: Any) -> Federation:
    method = {"name": "fedgkt", "layer": LAYER, "records": RECORDS, **changes.pop("method", {})}
    return federation(method, sizes=sizes, **{"rounds": 3, **changes})


def rows_sent(fed: Federation, client: int, sent: dict[str, Tensor]) -> list[int]:
    """Which of its records a client sent, found by their features."""
    front, _ = split(fed.setting.build(fed.setting.experiment.student.model, purpose="x"), LAYER)
    front.load_state_dict(group("front", sent))
    mine = evaluate.answers(front, fed.data[client].x)
    return [int((mine - row).abs().sum(dim=1).argmin()) for row in sent["features"].float()]


def test_a_client_sends_features_logits_and_labels_of_its_own_records() -> None:
    fed = built()
    broadcast = fed.begin()
    for client in range(3):
        sent = tensors(fed.ask(client, 1, broadcast))
        rows = rows_sent(fed, client, sent)
        assert len(set(rows)) == RECORDS
        assert torch.equal(sent["labels"], fed.data[client].y[rows])
        head = group("head", fed.states[client])
        logits = sent["features"].float() @ head["1.weight"].T + head["1.bias"]
        torch.testing.assert_close(sent["record_logits"].float(), logits, rtol=5e-3, atol=5e-3)


def test_records_are_drawn_anew_each_round() -> None:
    fed = built()
    broadcast = fed.begin()
    first, second = (rows_sent(fed, 0, tensors(fed.ask(0, round, broadcast))) for round in (1, 2))
    assert first != second


def test_the_student_is_the_mean_front_with_the_back_behind_it() -> None:
    fed = built(method={"back": STAY})
    _, back = split(fed.student, LAYER)
    before = {name: tensor.clone() for name, tensor in back.state_dict().items()}
    uploads = {c: fed.wire(c, fed.ask(c, 1, fed.begin())) for c in range(3)}
    returned = fed.method.server(fed.server_context(), uploads)
    state = fed.student.state_dict()
    for name in group("front", uploads[0]):
        parts = torch.stack([upload[f"front/{name}"] for upload in uploads.values()])
        shares = torch.tensor([24, 16, 8]) / 48
        torch.testing.assert_close(state[name], torch.tensordot(shares, parts, dims=1))
        assert torch.equal(returned.common[f"front/{name}"], state[name])
    torch.testing.assert_close({k: v for k, v in state.items() if k in before}, before)
    # The front alone travels.
    assert {name for name in uploads[0] if "/" in name} == {
        "front/hidden1.weight",
        "front/hidden1.bias",
    }


def test_each_client_gets_the_backs_logits_on_its_own_records() -> None:
    fed = built()
    uploads = {c: fed.wire(c, fed.ask(c, 1, fed.begin())) for c in (0, 2)}
    returned = fed.method.server(fed.server_context(), uploads)
    _, back = split(fed.student, LAYER)
    for client, upload in uploads.items():
        expected = evaluate.answers(back, upload["features"].float())
        found = returned.to("any", client)["answers"]
        torch.testing.assert_close(found.float(), expected, rtol=2e-3, atol=2e-3)
    assert "answers" not in returned.to("any", 1)


def test_the_back_learns_from_labels_and_from_the_clients_logits() -> None:
    fit = {"epochs": 200, "batch_size": 18, "optimiser": "adam", "learning_rate": 0.02}
    labels = torch.arange(RECORDS) % CLASSES
    told = 4 * torch.eye(CLASSES)[(labels + 1) % CLASSES]
    features = torch.eye(12)[:RECORDS]
    for weight, aim in ((0.0, labels), (50.0, (labels + 1) % CLASSES)):
        fed = built(method={"weight": weight, "back": fit})
        upload = {
            **fed.wire(0, fed.ask(0, 1, fed.begin())),
            "features": features.half(),
            "record_logits": told.half(),
            "labels": labels,
        }
        fed.method.server(fed.server_context(), {0: upload})
        _, back = split(fed.student, LAYER)
        assert torch.equal(evaluate.answers(back, features).argmax(dim=1), aim)


def test_a_client_learns_from_the_answers_on_the_records_of_the_round_before() -> None:
    fed = built(
        method={"weight": 50.0, "records": 24},
        training={"epochs": 150, "batch_size": 24, "optimiser": "adam", "learning_rate": 0.02},
    )
    begin = fed.begin()
    first = tensors(fed.ask(0, 1, begin))
    rows = rows_sent(fed, 0, first)
    assert sorted(rows) == list(range(24))
    wrong = (fed.data[0].y + 1) % CLASSES
    answers = 8 * torch.eye(CLASSES)[wrong[rows]]
    second = Broadcast(begin.common, by_client={0: {"answers": answers.half()}})
    sent = tensors(fed.ask(0, 2, second))
    said = sent["record_logits"].argmax(dim=1)
    assert torch.equal(said, (sent["labels"] + 1) % CLASSES)


def test_the_loss_by_its_formula() -> None:
    fed = built(method={"weight": 0.5, "temperature": 2.0})
    draws = torch.Generator().manual_seed(0)
    z, t = (3 * torch.randn(5, CLASSES, generator=draws) for _ in range(2))
    y, answered = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1.0, 0, 1, 1, 0])
    found = fed.method._loss(torch.nn.Identity(), z, y, t, answered)  # type: ignore[attr-defined]
    for i in range(5):
        p, q = (t[i] / 2).softmax(0), (z[i] / 2).softmax(0)
        kl = sum(float(a * (a / b).log()) for a, b in zip(p, q, strict=True))
        expected = float(F.cross_entropy(z[i : i + 1], y[i : i + 1])) + 0.5 * answered[i] * 4 * kl
        torch.testing.assert_close(float(found[i]), float(expected), rtol=1e-5, atol=1e-5)


def test_the_head_lasts_and_stays_at_home() -> None:
    fed = built(training=STILL)
    begin = fed.begin()
    fed.ask(1, 1, begin)
    kept = {k: t.clone() for k, t in group("head", fed.states[1]).items()}
    upload = fed.ask(1, 2, begin)
    torch.testing.assert_close(group("head", fed.states[1]), kept)
    assert not any(name.startswith("head") for name in upload.values)


def test_a_client_with_one_sample_repeats_it() -> None:
    fed = built((1, 20, 20))
    broadcast = fed.begin()
    sent = tensors(fed.ask(0, 1, broadcast))
    assert (sent["features"] == sent["features"][0]).all()
    for number in (1, 2):
        broadcast, _ = fed.round(number, broadcast)
    assert all(tensor.isfinite().all() for tensor in fed.student.state_dict().values())


def test_feature_maps_of_a_cnn_travel_as_maps() -> None:
    model = "dense-cnn"
    method = {"name": "fedgkt", "layer": "pool1", "records": 4}
    fed = federation(method, IMAGES, models=[model], student=model)
    assert fed.method.expects(fed.setting, 0)["features"].shape == (4, 16, 4, 4)
    broadcast, _ = fed.round(1, fed.begin())
    before = {k: t.clone() for k, t in fed.student.state_dict().items()}
    fed.round(2, broadcast, cohort=[1])
    assert not equal(before, fed.student.state_dict())


def test_the_receipts_name_what_leaks() -> None:
    receipts = {r.field: r.provenance for r in release(built().ask(0, 1, built().begin()))}
    words = "release: features, logits and labels of single records, no DP"
    assert {receipts[name] for name in ("features", "record_logits", "labels")} == {words}


@pytest.mark.parametrize("method", [{"layer": "relu9"}, {"layer": None}])
def test_a_layer_that_is_not_there_is_refused_with_those_that_are(method: dict[str, Any]) -> None:
    fed = federation({"name": "fedgkt", **{k: v for k, v in method.items() if v}})
    with pytest.raises(ConfigError, match=r"^method.layer: .*: flatten, hidden1, relu1$"):
        fed.method.check(fed.setting)


def test_unlike_models_are_refused() -> None:
    with pytest.raises(ConfigError, match="cannot take unlike ones"):
        built(models=[SMALL, "mlp"])


def test_a_front_that_overflows_is_found_before_it_is_averaged() -> None:
    fed = built()
    upload = fed.wire(0, fed.ask(0, 1, fed.begin()))
    answers = fed.method.probe(fed.setting, 0, upload, fed.test.x[:4])
    assert answers is not None
    assert answers.isfinite().all()
    huge = {**upload, "front/hidden1.weight": torch.full((12, 5), 3e38)}
    answers = fed.method.probe(fed.setting, 0, huge, fed.test.x[:4])
    assert answers is not None
    assert not answers.isfinite().all()
