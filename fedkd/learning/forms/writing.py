"""Forms of knowledge for models that write: of what is likely next, and of unlike vocabularies."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from fedkd.knowledge import writing
from fedkd.knowledge.places import mean_of_counted
from fedkd.learning.forms.base import Compared, Form, Weighted, logits
from fedkd.learning.forms.label import OF_CLASSES, Tempered, unlabelled
from fedkd.tasks.likelihoods.categorical import IGNORED


class ReverseKL(Tempered):
    """Parameters of `reverse-kl`."""

    temperature: float = Field(default=1.0, gt=0)
    """What logits are divided by."""
    alpha: float = Field(default=0.0, ge=0, lt=1)
    """The student's share of what it is compared with; 0.1 is DistiLLM's skew reverse KL."""


class SkewKL(ReverseKL):
    """Parameters of `skew-kl`."""

    alpha: float = Field(default=0.1, ge=0, lt=1)
    """The teacher's share of what it is compared with."""


class TopK(Tempered):
    """Parameters of `top-k`."""

    temperature: float = Field(default=1.0, gt=0)
    """What logits are divided by."""
    k: int = Field(default=32, ge=1)
    """How many of the teacher's likeliest classes are told apart; all others are one."""


def _reverse_kl(params: ReverseKL, *_: Any) -> Compared:
    return unlabelled(partial(writing.reverse_kl, **params.model_dump(exclude={"weight"})))


def _skew_kl(params: SkewKL, *_: Any) -> Compared:
    return unlabelled(partial(writing.skew_kl, **params.model_dump(exclude={"weight"})))


def _top_k(params: TopK, *_: Any) -> Compared:
    return unlabelled(partial(writing.top_k, **params.model_dump(exclude={"weight"})))


def _universal(_params: Weighted, *_: Any) -> Compared:
    def compare(ours: Sequence[Tensor], theirs: Sequence[Tensor], y: Tensor) -> Tensor:
        if ours[0].dim() == 2:
            return writing.universal(ours[0], theirs[0])
        # A teacher with a tokeniser of its own may have said all before the student has.
        said = (theirs[0] != 0).any(dim=-1)
        missing = max(0, y.shape[1] - said.shape[1])
        where = (y != IGNORED) & F.pad(said, (0, missing))[:, : y.shape[1]]
        return mean_of_counted(writing.universal(ours[0], theirs[0], where=where), where)

    return logits(compare)


FORMS = {
    "reverse-kl": Form(
        "Gu et al. 2024, arXiv:2306.08543", "logits", _reverse_kl, ReverseKL, asks=OF_CLASSES
    ),
    "skew-kl": Form(
        "Ko et al. 2024, arXiv:2402.03898", "logits", _skew_kl, SkewKL, asks=OF_CLASSES
    ),
    "top-k": Form(
        "compare Tan et al. 2019, arXiv:1902.10461", "logits", _top_k, TopK, asks=OF_CLASSES
    ),
    "uld": Form(
        "Boizard et al. 2024, arXiv:2402.12030",
        "logits",
        _universal,
        asks=OF_CLASSES,
        any_classes=True,
    ),
}
