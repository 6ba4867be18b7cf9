"""Forms of knowledge for recommenders: which items a teacher puts first, and how it sees a user."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from fedkd.knowledge import feature
from fedkd.knowledge import ranking as losses
from fedkd.learning.forms.adapters import Shape
from fedkd.learning.forms.base import Compared, Form, Weighted, logits, pairs
from fedkd.rng import torch_default
from fedkd.tasks.likelihoods.multinomial import unseen


class RankingOptions(Weighted):
    """Parameters of `ranking`."""

    k: PositiveInt = 10
    """How many of the teacher's first items."""
    decay: float = Field(default=10.0, gt=0)
    """In how many ranks an item's weight falls to 1 / e."""
    discrepancy: float = Field(default=0.1, gt=0)
    """How fast an item's weight grows with the ranks by which the student puts it back."""


class RelaxedRankingOptions(Weighted):
    """Parameters of `relaxed-ranking`."""

    k: PositiveInt = 40
    """How many of the teacher's first items are in order."""


class ExpertsOptions(Weighted):
    """Parameters of `experts`."""

    count: PositiveInt = 5
    """How many experts."""


class Experts(nn.Module):
    """A student's features of a user -> the teacher's, by experts: (N, ...) -> (N, outputs).

    Each expert is a linear map through half the way, and a gate says how much each is asked.
    """

    def __init__(self, inputs: int, outputs: int, count: int) -> None:
        super().__init__()
        middle = (inputs + outputs) // 2
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(inputs, middle), nn.ReLU(), nn.Linear(middle, outputs))
            for _ in range(count)
        )
        self.gate = nn.Linear(inputs, count)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = x.flatten(1)
        asked = self.gate(x).softmax(dim=1)
        said = torch.stack([expert(x) for expert in self.experts], dim=1)
        mixed: Tensor = (asked[:, :, None] * said).sum(dim=1)
        return mixed


def _of_unseen(loss: Callable[..., Tensor]) -> Compared:
    """A form by a loss of logits, over the items that neither model was shown."""

    def compare(ours: Sequence[Tensor], theirs: Sequence[Tensor], _y: Tensor) -> Tensor:
        where = unseen(ours[0]) & unseen(theirs[0])
        return loss(ours[0], theirs[0], where=where)

    return logits(compare)


def _ranking(params: RankingOptions, *_: Any) -> Compared:
    return _of_unseen(partial(losses.ranking, **params.model_dump(exclude={"weight"})))


def _relaxed(params: RelaxedRankingOptions, *_: Any) -> Compared:
    return _of_unseen(partial(losses.relaxed_ranking, k=params.k))


def _experts(
    params: ExpertsOptions,
    student: Sequence[Shape],
    teacher: Sequence[Shape],
    generator: torch.Generator,
) -> Compared:
    sizes = [(math.prod(s), math.prod(t)) for s, t in zip(student, teacher, strict=True)]
    with torch_default(generator):
        made = [Experts(inputs, outputs, params.count) for inputs, outputs in sizes]
    loss = partial(feature.hint, regressor=nn.Identity())
    return pairs(loss, made, [nn.Flatten() for _ in teacher])


FORMS = {
    "ranking": Form(
        "Tang & Wang 2018, arXiv:1809.07428", "logits", _ranking, RankingOptions, asks=("items",)
    ),
    "relaxed-ranking": Form(
        "Kang et al. 2020, arXiv:2012.04357",
        "logits",
        _relaxed,
        RelaxedRankingOptions,
        asks=("items",),
    ),
    "experts": Form("Kang et al. 2020, arXiv:2012.04357", "features", _experts, ExpertsOptions),
}
