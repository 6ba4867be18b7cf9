"""fedpair: what clients send, how they and the student start, and what each switch is for."""

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

import pytest
import torch
from federations import (
    CLASSES,
    IMAGES,
    ROWS,
    SMALL,
    STILL,
    WIDE,
    Federation,
    equal,
    federation,
    protected,
    samples,
    snapshot,
    tensors,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from fedkd.config import Optimisation
from fedkd.config.robust import Robust
from fedkd.data.shapes import made_up, shapes
from fedkd.data.types import Samples
from fedkd.errors import ConfigError, UnpaidError
from fedkd.exchange.messages import Broadcast, Release
from fedkd.knowledge import label
from fedkd.learning import consensus, evaluate, offline, supervised
from fedkd.learning.consensus_by_pairs import by_pairs
from fedkd.learning.dp import sgd
from fedkd.methods.core import accounting
from fedkd.methods.fedpair import FedPair, evenly
from fedkd.privacy.events import Event

TINY = {"images": 60, "epochs": 2}
TRAINING = {"epochs": 2, "batch_size": 8, "learning_rate": 0.05}
HELD = ((0, 1), (1, 2), (2,))
"""The classes of each client."""


def built(shape: tuple[int, ...] = IMAGES, **changes: Any) -> Federation:
    """Clients of few classes each; a change that is no parameter of the method is the federation's.

    Of three sizes, so that an average tells whom it weighs how.
    """
    own = {key: changes.pop(key) for key in list(changes) if key in FedPair.Params.model_fields}
    method = {"name": "fedpair", **TINY, **own}
    fed = federation(method, shape, public=None, **{"training": TRAINING, **changes})
    for client, classes in enumerate(HELD):
        data = samples(90 - 30 * client, shape, client)
        kept = torch.isin(data.y, torch.tensor(classes)).nonzero().flatten()
        fed.data[client] = data.subset(kept)
    return fed


def uploads(fed: Federation) -> dict[int, dict[str, Tensor]]:
    return {client: fed.wire(client, fed.ask(client, 1, Broadcast())) for client in range(3)}


def model(upload: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("model/"): v for key, v in upload.items() if key != "counts"}


def close(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Whether both are one model, but for rounding."""
    same = {key: value.shape for key, value in left.items()} == {
        k: v.shape for k, v in right.items()
    }
    return same and all(torch.allclose(left[k], right[k]) for k in left)


def test_a_client_sends_its_model_and_its_class_counts() -> None:
    fed = built()
    fed.method.check(fed.setting)
    for client, upload in uploads(fed).items():
        spec = fed.setting.experiment.client_model(client)
        assert set(upload) == {*fed.setting.model_specs(spec), "counts"}
        counts = torch.bincount(fed.data[client].y, minlength=CLASSES)
        assert torch.equal(upload["counts"], counts)
        assert set(counts.nonzero().flatten().tolist()) == set(HELD[client])


def test_equal_models_start_as_the_student_does() -> None:
    fed = built(training=STILL)
    for upload in uploads(fed).values():
        assert close(model(upload), snapshot(fed.student))


def test_the_student_starts_from_the_average_and_its_head_from_rows_by_class() -> None:
    fed = built(own_error=0.1)
    sent = uploads(fed)
    fed.method.start(fed.server_context(), sent)  # type: ignore[attr-defined]
    sizes = [len(data) for data in fed.data]
    assert len(set(sizes)) == 3
    found, last = snapshot(fed.student), 0
    for key, mean in found.items():
        each = [model(sent[client])[key].double() for client in range(3)]
        if len(mean) != CLASSES or "classifier" not in key:
            parts = [size * part for size, part in zip(sizes, each, strict=True)]
            torch.testing.assert_close(mean.double(), torch.stack(parts).sum(dim=0) / sum(sizes))
            continue
        last += 1
        for of in range(CLASSES):
            seen = [int((data.y == of).sum()) for data in fed.data]
            worth = [1 / (1 / n + 0.1) if n else 0.0 for n in seen]
            row = sum(w * part[of] for w, part in zip(worth, each, strict=True)) / sum(worth)
            torch.testing.assert_close(mean[of].double(), row)
    assert last == 2


@pytest.mark.parametrize(
    ("robust", "expected"),
    [
        (Robust(models="median"), lambda each: each.median(dim=0).values),
        (Robust(answers="median"), lambda each: each.mean(dim=0)),
    ],
)
def test_under_a_rule_of_robust_the_head_is_what_models_come_to(
    robust: Robust, expected: Callable[[Tensor], Tensor]
) -> None:
    fed = built()
    sent = uploads(fed)
    ctx = replace(fed.server_context(), robust=robust)
    assert isinstance(fed.method, FedPair)
    returned = model(fed.method.start(ctx, sent).common)
    for key, found in snapshot(fed.student).items():
        each = torch.stack([model(sent[client])[key] for client in range(3)])
        torch.testing.assert_close(found, expected(each))
        assert torch.equal(returned[key], found)


def test_a_head_that_no_client_sends_stays_as_it_is() -> None:
    fed = built()
    sent = {
        client: {key: each for key, each in upload.items() if "classifier" not in key}
        for client, upload in uploads(fed).items()
    }
    before = snapshot(fed.student)
    assert isinstance(fed.method, FedPair)
    fed.method.start(fed.server_context(), sent)
    same = {key: torch.equal(each, before[key]) for key, each in snapshot(fed.student).items()}
    assert [same[key] for key in same if "classifier" in key] == [True, True]
    assert not any(same[key] for key in same if "classifier" not in key)


class Odd(nn.Module):
    """A model whose head is none that rows by class could be averaged of."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        inputs = math.prod(shape)
        self.first = nn.Linear(inputs, 4)
        self.free = nn.Parameter(torch.zeros(4, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x.flatten(1)) @ self.free


class Normed(nn.Module):
    """A model whose head is parametrised."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.classifier = spectral_norm(nn.Linear(math.prod(shape), classes))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(x.flatten(1))
        return logits


@pytest.mark.parametrize("kind", [Odd, Normed])
def test_another_head_is_averaged_as_the_rest_is(
    kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("odd_heads")
    module.Odd, module.Normed = Odd, Normed  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "odd_heads", module)
    own = f"odd_heads:{kind.__name__}"
    fed = built(models=[own], student=own)
    sent = uploads(fed)
    assert isinstance(fed.method, FedPair)
    fed.method.start(fed.server_context(), sent)
    sizes = [len(data) for data in fed.data]
    for key, found in snapshot(fed.student).items():
        parts = [size * model(sent[client])[key] for client, size in enumerate(sizes)]
        torch.testing.assert_close(found, torch.stack(parts).sum(dim=0) / sum(sizes))


@pytest.mark.parametrize(
    "changes", [{"common_start": False}, {"models": [SMALL, WIDE]}, {"student": WIDE}]
)
def test_otherwise_each_has_a_start_of_its_own(changes: dict[str, Any]) -> None:
    fed = built(training=STILL, **changes)
    before = snapshot(fed.student)
    sent = uploads(fed)
    starts = [model(upload) for upload in sent.values()]
    assert not any(close(start, before) for start in starts)
    assert not close(starts[0], starts[2])
    fed.method.start(fed.server_context(), sent)  # type: ignore[attr-defined]
    assert equal(snapshot(fed.student), before)


@pytest.mark.parametrize("balanced", [True, False])
def test_clients_train_with_balanced_softmax_or_without(balanced: bool) -> None:
    fed = built(balanced=balanced)
    [sent, *_] = uploads(fed).values()
    own = fed.setting.build(fed.setting.experiment.student.model, purpose="student")
    counts = torch.bincount(fed.data[0].y, minlength=CLASSES)
    offset = supervised.balanced_offset(counts) if balanced else None
    ctx = fed.client_context(0)
    supervised.train(own, fed.data[0], ctx.training, ctx.rng("batches"), offset=offset)
    assert equal(model(sent), snapshot(own))


def answer(fed: Federation, sent: dict[int, dict[str, Tensor]], x: Tensor) -> Tensor:
    """What the ensemble says, by the consensus that is looked up by name."""
    teachers = fed.server_context().load_teachers(sent).values()
    each = torch.stack([evaluate.answers(teacher, x) for teacher in teachers])
    counts = torch.stack([upload["counts"] for upload in sent.values()])
    params = fed.method.params
    assert isinstance(params, FedPair.Params)
    match params.consensus:
        case "pairs":
            return by_pairs(each, counts, absolute=params.absolute, own_error=params.own_error)
        case "classes":
            return consensus.by_class(each, counts)
        case "probabilities":
            return consensus.average_probabilities(each)
        case "logits":
            return each.mean(dim=0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"absolute": 3.0},
        {"own_error": 0.0},
        {"consensus": "classes"},
        {"consensus": "probabilities"},
        {"consensus": "logits"},
    ],
)
def test_images_are_answered_by_the_consensus_and_taught_row_by_row(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}

    def watched(*given: Any, **options: Any) -> list[float]:
        told.update(zip(("x", "answers", "loss", "how", "draws"), given[1:], strict=True))
        told["start"] = snapshot(given[0])
        return distil(*given, **options)

    distil = offline.distil
    monkeypatch.setattr(offline, "distil", watched)
    fed = built(temperature=3.0, student_learning_rate=0.05, **changes)
    sent = uploads(fed)
    ctx = fed.server_context()
    fed.method.server(ctx, sent)
    torch.testing.assert_close(told["answers"], answer(fed, sent, told["x"]), rtol=1e-4, atol=1e-5)
    right = answer(fed, sent, fed.test.x).argmax(dim=1) == fed.test.y
    assert ctx.ensemble["accuracy"] == pytest.approx(float(right.double().mean()))
    assert told["how"] == Optimisation(
        epochs=2, batch_size=128, learning_rate=0.05, schedule="cosine"
    )
    logits, targets = told["answers"].roll(1, dims=0), told["answers"]
    assert torch.equal(told["loss"](logits, targets), label.kd(logits, targets, temperature=3.0))
    start = fed.setting.build(fed.setting.experiment.student.model, purpose="student")
    start.load_state_dict(told["start"])
    distil(start, told["x"], targets, partial(label.kd, temperature=3.0), told["how"],
           ctx.rng("distillation"))  # fmt: skip
    assert equal(snapshot(start), snapshot(fed.student))
    assert len(ctx.curve) == 2
    assert ctx.curve[-1] == fed.accuracy()
    assert ctx.generated is not None
    assert torch.equal(ctx.generated.x, told["x"])
    assert torch.equal(ctx.generated.y, targets.argmax(dim=1))


def test_the_student_follows_the_ensemble_on_data_that_it_never_saw() -> None:
    training = {"epochs": 12, "batch_size": 8, "learning_rate": 0.2}
    fed = built(images=1500, epochs=8, common_start=False, training=training)
    sent, before = uploads(fed), fed.accuracy()
    fed.method.server(fed.server_context(), sent)
    mine = evaluate.answers(fed.student, fed.test.x).argmax(dim=1)
    agreed = float((mine == answer(fed, sent, fed.test.x).argmax(dim=1)).double().mean())
    assert agreed > 0.85 > before


def generated(fed: Federation) -> Samples:
    ctx = fed.server_context()
    fed.method.server(ctx, uploads(fed))
    assert ctx.generated is not None
    return ctx.generated


@pytest.mark.parametrize("blends", [True, False])
def test_images_are_shapes_and_with_blends_blends_of_them(blends: bool) -> None:
    fed = built(blends=blends, even=False)
    draw = made_up if blends else shapes
    expected = draw(60, IMAGES, fed.server_context().rng("shapes"))
    assert torch.equal(generated(fed).x, expected)


def test_even_rows_are_of_the_same_images_and_have_all_classes_as_often() -> None:
    uneven, even = (generated(built(images=900, even=each)) for each in (False, True))
    pool = {
        image.numpy().tobytes(): y for image, y in zip(uneven.x, uneven.y.tolist(), strict=True)
    }
    assert len(even.x) == 900
    assert all(
        pool[image.numpy().tobytes()] == y for image, y in zip(even.x, even.y.tolist(), strict=True)
    )
    drawn = torch.bincount(uneven.y, minlength=CLASSES)
    present = int((drawn > 0).sum())
    assert present > 1
    assert drawn.max() > 1.3 * drawn[drawn > 0].min()
    shares = torch.bincount(even.y, minlength=CLASSES)[drawn > 0] / 900
    torch.testing.assert_close(shares, torch.full((present,), 1 / present), rtol=0, atol=0.06)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=5), st.integers(0, 2**31))
def test_evenly_draws_each_class_that_there_is_as_often(sizes: list[int], seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    classes = torch.repeat_interleave(2 * torch.arange(len(sizes)), torch.tensor(sizes))
    rows = evenly(classes, draws)
    assert len(rows) == len(classes)
    more = torch.cat([evenly(classes, draws) for _ in range(1 + 4000 // len(classes))])
    shares = torch.bincount(classes[more])[::2] / len(more)
    assert shares.tolist() == pytest.approx([1 / len(sizes)] * len(sizes), abs=0.06)


def test_a_later_round_starts_from_the_average_and_trains_as_later_says() -> None:
    later = {"epochs": 1, "batch_size": 4, "learning_rate": 0.2, "schedule": "cosine"}
    fed = built(rounds=3, later=later)
    fed.method.check(fed.setting)
    broadcast = fed.begin()
    assert broadcast == Broadcast()
    sent = {client: fed.wire(client, fed.ask(client, 1, broadcast)) for client in range(3)}
    broadcast, _ = fed.round(1, broadcast)
    average = model(broadcast.common)
    fed.method.start(fed.server_context(), sent)  # type: ignore[attr-defined]
    assert equal(average, snapshot(fed.student))
    for number, how in ((2, Optimisation(**later)), (3, Optimisation(**later))):
        told = tensors(fed.ask(0, number, broadcast))
        own = fed.setting.build(fed.setting.experiment.student.model, purpose="student")
        own.load_state_dict(average)
        ctx = fed.client_context(0, number)
        counts = torch.bincount(fed.data[0].y, minlength=CLASSES)
        offset = supervised.balanced_offset(counts)
        supervised.train(own, fed.data[0], how, ctx.rng("batches"), offset=offset)
        assert equal(model(told), snapshot(own))
        assert "optimiser" not in {name.split("/")[0] for name in fed.states[0]}


def test_from_the_second_round_on_each_class_is_left_to_who_has_seen_it() -> None:
    fed = built(rounds=2, own_error=0.1)
    broadcast, _ = fed.round(1, fed.begin())
    sent = {client: fed.wire(client, fed.ask(client, 2, broadcast)) for client in range(3)}
    ctx = fed.server_context(round=2)
    with torch.no_grad():
        each = torch.stack([teacher(fed.test.x) for teacher in ctx.load_teachers(sent).values()])
    counts = torch.stack([torch.bincount(data.y, minlength=CLASSES) for data in fed.data])
    assert isinstance(fed.method, FedPair)
    found = fed.method.consensus(ctx, sent)(each)
    shares = counts / (1 + 0.1 * counts)
    weights = shares / shares.sum(dim=0)
    expected = (weights[:, None] * each.softmax(dim=2)).sum(dim=0)
    expected /= expected.sum(dim=1, keepdim=True)
    torch.testing.assert_close(found.exp(), expected)


def test_a_client_that_comes_late_starts_from_the_average_too_and_shapes_are_new() -> None:
    fed = built(rounds=2, training=STILL)
    broadcast, first = fed.round(1, fed.begin(), [0, 1])
    handed = model(broadcast.common)
    upload = tensors(fed.ask(2, 2, broadcast))
    assert close(model(upload), handed)
    assert not fed.client_context(2).has_teacher
    _, second = fed.round(2, broadcast)
    assert first.generated is not None
    assert second.generated is not None
    assert not torch.equal(first.generated.x, second.generated.x)


def test_the_first_of_several_rounds_is_that_of_one() -> None:
    students = []
    for rounds in (1, 3):
        fed = built(rounds=rounds, **({"later": {"epochs": 1}} if rounds > 1 else {}))
        fed.round(1, fed.begin())
        students.append(snapshot(fed.student))
    assert equal(*students)


@pytest.mark.parametrize(
    "changes", [{"common_start": False}, {"models": [SMALL, WIDE]}, {"student": WIDE}]
)
def test_unlike_models_get_nothing_back_and_so_have_one_round(changes: dict[str, Any]) -> None:
    fed = built(**changes)
    fed.method.check(fed.setting)
    assert fed.round(1, fed.begin())[0] == Broadcast()
    several = built(rounds=4, **changes)
    told = r"key 'rounds' is 4: .* expected equal models and .* = true, or rounds = 1$"
    with pytest.raises(ConfigError, match=told):
        several.method.check(several.setting)


def test_another_training_of_later_rounds_is_refused_where_a_plan_has_rounds_alike() -> None:
    fed = under_dp(built(rounds=2, later={"epochs": 1}))
    with pytest.raises(ConfigError, match=r"method\.later is set: under \[privacy\]"):
        fed.method.check(fed.setting)


def test_counts_that_noise_has_made_0_do_not_end_the_run() -> None:
    fed = built()
    sent = uploads(fed)
    for upload in sent.values():
        upload["counts"] = torch.zeros(CLASSES, dtype=torch.int64)
    ctx = fed.server_context()
    fed.method.server(ctx, sent)
    assert all(bool(value.isfinite().all()) for value in snapshot(fed.student).values())


def test_threads_do_not_change_the_student() -> None:
    students = []
    for threads in (1, 3):
        fed = built(models=[SMALL, WIDE])
        fed.method.server(fed.server_context(threads=threads), uploads(fed))
        students.append(snapshot(fed.student))
    assert equal(*students)


def test_rows_of_features_are_refused_before_anything_runs() -> None:
    rows = built(ROWS)
    with pytest.raises(ConfigError, match=r"method 'fedpair' cannot generate inputs of shape \(5,"):
        rows.method.check(rows.setting)


class Account:
    """An allowance that allows everything, and writes down what it is asked for."""

    def __init__(self) -> None:
        self.spent: list[Event] = []

    def spend(self, event: Event, **_: str) -> None:
        self.spent.append(event)


def under_dp(fed: Federation) -> Federation:
    """With noise that is hardly any in gradients, and much in counts."""
    fed.setting = protected(fed.setting)
    privacy = fed.setting.experiment.privacy.model_copy(
        update={"noise_multiplier": 1.0, "sample_rate": 0.5, "count_noise": 20.0}
    )
    experiment = fed.setting.experiment.model_copy(update={"privacy": privacy})
    fed.setting = replace(fed.setting, experiment=experiment)
    return fed


def test_under_dp_counts_are_noisy_and_paid_for_and_what_is_sent_is_what_balances(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offsets: list[Tensor] = []

    def watched(*given: Any, offset: Tensor, **options: Any) -> None:
        offsets.append(offset)
        train(*given, offset=offset, **options)

    train = sgd.train
    monkeypatch.setattr(sgd, "train", watched)
    fed, account = under_dp(built()), Account()
    ctx = fed.client_context(0)
    ctx.allowance = account  # type: ignore[assignment]
    upload = fed.method.client(ctx, {})
    counting, training = fed.setting.counting("class counts"), fed.setting.training
    assert account.spent == [counting, training]
    assert upload.values["counts"].provenance == Release(counting)
    sent = tensors(upload)
    assert set(fed.wire(0, upload)) == set(fed.method.expects(fed.setting, 0))
    assert sent["counts"].tolist() != torch.bincount(fed.data[0].y, minlength=CLASSES).tolist()
    assert [each.tolist() for each in offsets] == [
        supervised.balanced_offset(sent["counts"]).tolist()
    ]
    with pytest.raises(UnpaidError):  # which the method, then, has not touched
        _ = ctx.data


@pytest.mark.parametrize("rounds", [1, 4])
def test_the_plan_pays_for_counts_once_and_for_training_in_each_round(rounds: int) -> None:
    fed = under_dp(built(rounds=rounds))
    fed.method.check(fed.setting)
    plan = accounting.plan(fed.method, fed.setting)
    assert plan.count(fed.setting.counting("class counts")) == 1
    assert plan.count(fed.setting.training) == rounds
    assert len(plan) == 1 + rounds
