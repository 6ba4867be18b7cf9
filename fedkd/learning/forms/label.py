"""Forms of knowledge in labels: what the teacher answers."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pydantic import Field
from torch import Tensor

from fedkd.errors import ConfigError
from fedkd.knowledge import dist as losses
from fedkd.knowledge import feature, label
from fedkd.knowledge.places import mean_of_counted
from fedkd.learning.forms.base import Compared, Form, Weighted, logits
from fedkd.tasks import Ask, Likelihood, Task
from fedkd.tasks.likelihoods.categorical import IGNORED


class Tempered(Weighted):
    """A form that softens logits."""

    temperature: float = Field(default=4.0, gt=0)
    """What logits are divided by."""


class KD(Tempered):
    """Parameters of `kd`."""

    weight: float = Field(default=0.9, gt=0)


class JSD(Tempered):
    """Parameters of `jsd`."""

    beta: float = Field(default=0.5, gt=0, lt=1, exclude_if=lambda share: share == 0.5)
    """The teacher's share; near 0 like `kd`, near 1 like `reverse-kl`."""


class DKD(Tempered):
    """Parameters of `dkd`."""

    alpha: float = Field(default=1.0, ge=0)
    """Weight of the target class's part."""
    beta: float = Field(default=8.0, ge=0)
    """Weight of the other classes' part."""


class DIST(Weighted):
    """Parameters of `dist`."""

    temperature: float = Field(default=1.0, gt=0)
    """What logits are divided by."""
    beta: float = Field(default=1.0, ge=0)
    """Weight of a sample's classes."""
    gamma: float = Field(default=1.0, ge=0)
    """Weight of a class's samples."""


class SoftLabels(Weighted):
    """Parameters of `soft-labels`."""

    temperature: float = Field(default=1.0, gt=0)
    """What the teacher's logits are divided by; the student's are not."""


class Divergence(Weighted):
    """Parameters of `divergence`."""

    temperature: float = Field(default=1.0, gt=0)
    """By which the task's likelihood softens answers, if it does."""


def counting(answers: Tensor, y: Tensor) -> Tensor | None:
    """Which places of answers (N, *S, C) count, bool (N, *S); None where a record has but one."""
    return None if answers.dim() == 2 else y != IGNORED


def mean_of(values: Tensor, where: Tensor | None) -> Tensor:
    """The mean over all places that count, of values that are 0 elsewhere."""
    return values.mean() if where is None else values.sum() / where.sum().clamp(min=1)


def by_record(loss: Callable[..., Tensor]) -> Compared:
    """A form by a loss per place, of answers, targets and `where`: of each record the mean."""

    def compare(ours: Sequence[Tensor], theirs: Sequence[Tensor], y: Tensor) -> Tensor:
        where = counting(ours[0], y)
        values = loss(ours[0], theirs[0], y, where=where)
        return values if where is None else mean_of_counted(values, where)

    return logits(compare)


def unlabelled(loss: Callable[..., Tensor]) -> Compared:
    """A form by a loss per place, of answers and `where`: of each record the mean."""
    return by_record(lambda ours, theirs, _y, where: loss(ours, theirs, where=where))


def _kd(params: KD, *_: Any) -> Compared:
    return unlabelled(partial(label.kd, temperature=params.temperature))


def _dkd(params: DKD, *_: Any) -> Compared:
    return by_record(partial(label.dkd, **params.model_dump(exclude={"weight"})))


def _dist(params: DIST, *_: Any) -> Compared:
    def compare(ours: Sequence[Tensor], theirs: Sequence[Tensor], y: Tensor) -> Tensor:
        where = counting(ours[0], y)
        about: dict[str, Any] = {"temperature": params.temperature, "where": where}
        mean = mean_of(losses.inter_class(ours[0], theirs[0], **about), where)
        intra = losses.intra_class(ours[0], theirs[0], **about)
        return params.beta * mean + params.gamma * intra.mean()

    return logits(compare)


def _jsd(params: JSD, *_: Any) -> Compared:
    return unlabelled(partial(label.jsd, temperature=params.temperature, beta=params.beta))


def _soft_labels(params: SoftLabels, *_: Any) -> Compared:
    def loss(ours: Tensor, theirs: Tensor, *, where: Tensor | None) -> Tensor:
        target = (theirs / params.temperature).softmax(dim=-1)
        return label.soft_cross_entropy(ours, target, where=where)

    return unlabelled(loss)


def _mae(_params: Weighted, *_: Any) -> Compared:
    return unlabelled(label.mae)


def _angular(_params: Weighted, *_: Any) -> Compared:
    return logits(lambda ours, theirs, _y: feature.angular(ours[0], theirs[0]))


def _of_vectors(_params: Weighted, task: Task, key: str) -> None:
    if "items" in task.offers:
        raise ConfigError(
            f"{key} compares angles of answers, and those of task {task.name!r} are all alike, as "
            "the items that were shown outweigh the others: choose 'divergence' or 'ranking'"
        )


def _divergence(params: Divergence, *_: Any, likelihood: Likelihood) -> Compared:
    t = params.temperature
    return logits(lambda ours, theirs, _y: likelihood.divergence(ours[0], theirs[0], temperature=t))


OF_CLASSES: tuple[Ask, ...] = ("categorical",)
"""What a form asks that compares distributions over classes."""

FORMS = {
    "kd": Form("Hinton et al. 2015, arXiv:1503.02531", "logits", _kd, KD, asks=OF_CLASSES),
    "dkd": Form("Zhao et al. 2022, arXiv:2203.08679", "logits", _dkd, DKD, asks=OF_CLASSES),
    "dist": Form(
        "Huang et al. 2022, arXiv:2205.10536",
        "logits",
        _dist,
        DIST,
        couples=True,
        asks=OF_CLASSES,
    ),
    "jsd": Form("Lin 1991, IEEE Trans. Inf. Theory 37(1)", "logits", _jsd, JSD, asks=OF_CLASSES),
    "soft-labels": Form(
        "Hinton et al. 2015, arXiv:1503.02531",
        "logits",
        _soft_labels,
        SoftLabels,
        asks=OF_CLASSES,
    ),
    "mae": Form("Li & Wang 2019, arXiv:1910.03581", "logits", _mae),
    "angular": Form("Duong et al. 2019, arXiv:1905.10620", "logits", _angular, fits=_of_vectors),
    "divergence": Form(
        "the task's likelihood, fedkd.tasks", "logits", _divergence, Divergence, of_task=True
    ),
}
