"""Forms of knowledge in labels: what the teacher answers."""

from typing import Any

from pydantic import Field

from fedkd.knowledge import dist as losses
from fedkd.knowledge import label
from fedkd.learning.forms.base import Compared, Form, Weighted, logits


class Tempered(Weighted):
    """A form that softens logits."""

    temperature: float = Field(default=4.0, gt=0)
    """What logits are divided by."""


class KD(Tempered):
    """Parameters of `kd`."""

    weight: float = Field(default=0.9, gt=0)


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


def _kd(params: KD, *_: Any) -> Compared:
    t = params.temperature
    return logits(lambda ours, theirs, _y: label.kd(ours[0], theirs[0], temperature=t))


def _dkd(params: DKD, *_: Any) -> Compared:
    chosen = params.model_dump(exclude={"weight"})
    return logits(lambda ours, theirs, y: label.dkd(ours[0], theirs[0], y, **chosen))


def _dist(params: DIST, *_: Any) -> Compared:
    t = params.temperature
    return logits(
        lambda ours, theirs, _y: (
            params.beta * losses.inter_class(ours[0], theirs[0], temperature=t).mean()
            + params.gamma * losses.intra_class(ours[0], theirs[0], temperature=t).mean()
        )
    )


def _jsd(params: Tempered, *_: Any) -> Compared:
    t = params.temperature
    return logits(lambda ours, theirs, _y: label.jsd(ours[0], theirs[0], temperature=t))


def _soft_labels(params: SoftLabels, *_: Any) -> Compared:
    t = params.temperature
    return logits(
        lambda ours, theirs, _y: label.soft_cross_entropy(ours[0], (theirs[0] / t).softmax(dim=1))
    )


def _mae(_params: Weighted, *_: Any) -> Compared:
    return logits(lambda ours, theirs, _y: label.mae(ours[0], theirs[0]))


FORMS = {
    "kd": Form("Hinton et al. 2015, arXiv:1503.02531", "logits", _kd, KD),
    "dkd": Form("Zhao et al. 2022, arXiv:2203.08679", "logits", _dkd, DKD),
    "dist": Form("Huang et al. 2022, arXiv:2205.10536", "logits", _dist, DIST, couples=True),
    "jsd": Form("Lin 1991, IEEE Trans. Inf. Theory 37(1)", "logits", _jsd, Tempered),
    "soft-labels": Form("Hinton et al. 2015, arXiv:1503.02531", "logits", _soft_labels, SoftLabels),
    "mae": Form("Li & Wang 2019, arXiv:1910.03581", "logits", _mae),
}
