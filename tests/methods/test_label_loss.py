"""The student's loss by name: the formula of the name, and by default what it always was."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from federations import SMALL, WIDE, Federation, equal, federation, snapshot
from torch import Tensor

from fedkd import tasks
from fedkd.config import TaskChoice
from fedkd.errors import ConfigError
from fedkd.exchange.messages import Broadcast
from fedkd.knowledge import dist, label, logits, writing
from fedkd.learning import forms, offline
from fedkd.methods.core.label_loss import LABEL_FORMS, check_loss, label_loss

T = 3.0
HOW = {"epochs": 2, "batch_size": 8, "learning_rate": 0.05}


def levels(student: Tensor, teacher: Tensor, temperatures: Sequence[float]) -> Tensor:
    each = [label.kd(student, teacher, temperature=warm) for warm in temperatures]
    total = torch.stack(each).sum(dim=0).mean()
    for warm in temperatures:
        total = total + logits.batch_level(student, teacher, temperature=warm).mean()
        total = total + logits.class_level(student, teacher, temperature=warm).mean()
    return total


ORACLES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kd": lambda s, t: label.kd(s, t, temperature=T),
    "dkd": lambda s, t: label.dkd(s, t, t.argmax(dim=1), alpha=1.0, beta=8.0, temperature=T),
    "jsd": lambda s, t: label.jsd(s, t, temperature=T),
    "mae": label.mae,
    "angular": lambda s, t: (1 - torch.cosine_similarity(s, t, dim=1)).square(),
    "divergence": lambda s, t: label.kd(s, t, temperature=T),
    "reverse-kl": lambda s, t: writing.reverse_kl(s, t, temperature=T),
    "skew-kl": lambda s, t: writing.skew_kl(s, t, temperature=T, alpha=0.1),
    "top-k": lambda s, t: writing.top_k(s, t, temperature=T, k=32),
    "uld": writing.universal,
    "logit-standardisation": lambda s, t: logits.standardised_kd(s, t, temperature=T),
    "mlkd": lambda s, t: levels(s, t, (2, 3, 4, 5, 6)),
    "soft-labels": lambda s, t: label.soft_cross_entropy(s, (t / T).softmax(dim=1)),
    "dist": lambda s, t: (
        dist.inter_class(s, t, temperature=T).mean() + dist.intra_class(s, t, temperature=T).mean()
    ),
}


def by_hand(fed: Federation, targets: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> Any:
    """The student distilled from `targets` without its method."""
    ctx = fed.server_context()
    student = fed.setting.build(fed.setting.experiment.student.model, purpose="student")
    how = fed.method.params.student  # type: ignore[attr-defined]
    offline.distil(student, fed.setting.proxy, targets, loss, how, ctx.rng("distillation"))
    return snapshot(student)


def answers(name: str = "logits") -> dict[int, dict[str, Tensor]]:
    draws = torch.Generator().manual_seed(0)
    said = 3 * torch.randn(2, 30, 3, generator=draws)
    said = said if name == "logits" else said.softmax(dim=2)
    return {client: {name: each.half()} for client, each in enumerate(said)}


def test_every_form_that_looks_at_answers_alone_can_be_named() -> None:
    of_classes = {
        n for n in LABEL_FORMS if {"classes", "categorical"}.issuperset(forms.find(n).asks)
    }
    assert of_classes == set(ORACLES)
    for name in ORACLES:
        federation({"name": "fedmd", "loss": name})


@pytest.mark.parametrize("name", ORACLES)
def test_fedmds_student_learns_by_the_form_of_that_name_bitwise(name: str) -> None:
    fed = federation({"name": "fedmd", "loss": name, "temperature": T, "student": HOW})
    fed.method.server(fed.server_context(), answers())
    consensus = torch.stack([each["logits"] for each in answers().values()]).float().mean(dim=0)
    assert equal(snapshot(fed.student), by_hand(fed, consensus, ORACLES[name]))


@pytest.mark.parametrize(("name", "default"), [("fedmd", "kd"), ("feddf", "kd")])
def test_the_default_is_kd_bitwise(name: str, default: str) -> None:
    students = []
    for chosen in ({}, {"loss": default}, {"loss": "mae"}):
        fed = federation({"name": name, "student": HOW, **chosen}, models=[SMALL, WIDE])
        fed.round(1, fed.begin())
        students.append(snapshot(fed.student))
    assert equal(students[0], students[1])
    assert not equal(students[0], students[2])


def dsfl(**chosen: Any) -> tuple[Federation, Tensor]:
    """DS-FL after one round on planted answers, and the aggregate that it learnt from."""
    fed = federation({"name": "dsfl", "student": HOW, **chosen})
    fed.method.server(fed.server_context(), answers("probabilities"))
    sent = torch.stack([each["probabilities"] for each in answers("probabilities").values()])
    return fed, (sent.float().mean(dim=0) / 0.1).softmax(dim=1)


def test_dsfls_student_learns_by_soft_labels_unless_told_otherwise() -> None:
    fed, aggregate = dsfl()
    assert equal(snapshot(fed.student), by_hand(fed, aggregate, label.soft_cross_entropy))
    fed, aggregate = dsfl(loss="jsd")
    expected = by_hand(fed, aggregate.log(), lambda s, t: label.jsd(s, t, temperature=1.0))
    assert equal(snapshot(fed.student), expected)


def test_a_probability_of_zero_has_a_logarithm() -> None:
    for name in ORACLES:
        fed = federation({"name": "dsfl", "loss": name, "student": HOW, "temperature": 1e-3})
        fed.method.server(fed.server_context(), answers("probabilities"))
        assert all(tensor.isfinite().all() for tensor in snapshot(fed.student).values()), name


def test_a_loss_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"key 'method.loss' is .*kdd.*'kd'.*'mae'"):
        federation({"name": "fedmd", "loss": "kdd"})


def test_the_loss_does_not_move_the_clients() -> None:
    uploads = []
    for loss in ("kd", "mae"):
        fed = federation({"name": "fedmd", "loss": loss})
        uploads.append(fed.ask(0, 1, Broadcast()).values["logits"].data)
    assert torch.equal(*uploads)


def test_values_are_per_sample_where_the_form_is() -> None:
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    shapes = {name: label_loss(name, temperature=T)(z, z.flip(0)).shape for name in ORACLES}
    assert shapes == {name: (() if forms.find(name).couples else (4,)) for name in ORACLES}


def test_a_loss_whose_defaults_are_not_of_the_task_is_refused() -> None:
    boxes = tasks.build(
        TaskChoice.model_validate({"name": "detection", "stride": 8}),
        inputs=(1, 32, 32),
        names=("tree",),
    )
    with pytest.raises(
        ConfigError, match=r"method.loss \(bounded-shapes\).stride is 4; expected 8"
    ):
        check_loss("bounded-shapes", boxes)
    items = tasks.build(
        TaskChoice(name="recommendation"), inputs=(12,), names=tuple(map(str, range(12)))
    )
    with pytest.raises(ConfigError, match=r"method.loss \(angular\) compares angles"):
        check_loss("angular", items)
