"""Votes of a client's teachers: what they cost under DP, and who wins once noise is on them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fedkd.data.types import Samples
from fedkd.errors import UnpaidError
from fedkd.exchange.messages import PostProcessing, Provenance
from fedkd.methods.core.setting import Setting
from fedkd.privacy import mechanisms
from fedkd.privacy.allowance import Allowance
from fedkd.privacy.events import Gaussian, Protected, Unprotected
from fedkd.privacy.source import GENERATOR, NoiseSource

Count = Callable[[Samples, torch.Generator], Tensor]
"""Records -> the votes of their teachers for each class, int64 (Q, C). The generator draws whom a
record teaches, for each record alone and in the records' order."""


@dataclass(frozen=True, slots=True)
class Voting:
    """How a client's teachers vote, each of whom has learned from other records."""

    queries: int
    """Votes that a record has a part in, in a round: by one teacher each."""
    voters: int
    """Teachers that vote on one of them."""

    def event(self, setting: Setting) -> Gaussian:
        """Noise on all votes: what a record more or less moves is one teacher's vote on each."""
        noise = setting.training.noise_multiplier
        return Gaussian("votes of teachers", noise, steps=self.queries)


class _Client(Protocol):
    """What of a `ClientContext` an election takes."""

    setting: Setting
    _data: Samples
    allowance: Allowance | None
    learned_by: Protected | None

    def rng(self, purpose: str) -> torch.Generator:
        """See `ClientContext`."""


def elected(ctx: _Client, voting: Voting, count: Count) -> tuple[Tensor, Provenance]:
    """The class that most teachers name, of each query, int64 (Q,), and what that comes of.

    Under DP every query is a step of GNMax, Papernot et al. 2018, arXiv:1802.08908, paid for before
    a record is touched. A record more or less changes one teacher's vote, by which two counts move
    by one each, sqrt(2) in L2 norm. Whom a record teaches is drawn in secret: by the seed, which
    the server knows, a record less would move all after it to other teachers.

    Args:
        ctx: the client's.
        voting: the queries that are paid for.
        count: see `Count`. No vote may depend on records that do not teach who casts it.

    Raises:
        UnpaidError: there are not as many votes as are paid for; nothing was released.
    """
    if ctx.allowance is None:
        votes = count(ctx._data, ctx.rng("divisions"))
        return votes.argmax(dim=1), PostProcessing(of=Unprotected("votes of teachers"))
    event, source = voting.event(ctx.setting), NoiseSource()
    ctx.allowance.spend(event, generator=GENERATOR)
    votes = count(ctx._data, source.generator())
    if len(votes) != voting.queries:
        raise UnpaidError(f"{len(votes)} votes: expected the {voting.queries} that are paid for")
    ctx.learned_by = event
    noise = event.noise_multiplier * math.sqrt(2)
    return mechanisms.noisy_votes(votes, noise=noise, source=source), PostProcessing(of=event)
