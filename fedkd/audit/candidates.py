"""Candidates: records of which an attacker asks whether a client learnt from them."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from fedkd.data.types import Samples
from fedkd.rows import shape_of

Kind = Literal["records", "mislabelled", "out-of-distribution"]
"""A client's own records; such with a wrong label; noise with a label. The odder, the louder."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Candidates of one client, each included in its data by a fair coin.

    Attributes:
        samples: m inputs and the labels that the client learns them by.
        included: bool (m,).
    """

    samples: Samples
    included: Tensor

    def __len__(self) -> int:
        return len(self.included)

    @property
    def learnt(self) -> Samples:
        """Those that are in the client's data."""
        return self.samples.subset(self.included.nonzero().flatten())


def draw(
    data: Samples, count: int, kind: Kind, *, classes: int, generator: torch.Generator
) -> tuple[Samples, Candidates]:
    """Candidates for a client, and its own data without them.

    Args:
        data: N of the client's records.
        count: how many candidates; at most half of N are taken out of the data.
        kind: what they are; those out of distribution leave the data whole.
        classes: C >= 2.
        generator: which records, which labels, which coins.

    Returns:
        The data that stays, and the candidates, of which the client also learns `learnt`.
    """
    if kind == "out-of-distribution":
        x = torch.rand(count, *shape_of(data.x), generator=generator)
        y = torch.randint(classes, (count,), generator=generator)
        coins, stage = _coins(count, generator), None
        if data.stage is not None:  # as often as the client's own records
            stage = data.stage[torch.randint(len(data), (count,), generator=generator)]
        return data, Candidates(Samples(x, y, stage), coins)
    count = min(count, len(data) // 2)
    order = torch.randperm(len(data), generator=generator)
    taken, rest = data.subset(order[:count]), data.subset(order[count:])
    if kind == "mislabelled":
        shift = torch.randint(1, classes, (count,), generator=generator)
        taken = replace(taken, y=(taken.y + shift) % classes)
    return rest, Candidates(taken, _coins(count, generator))


def _coins(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator) < 0.5
