"""Candidates: records of which an attacker asks whether a client learnt from them."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from fedkd.data.types import Samples
from fedkd.rows import shape_of, whole
from fedkd.tasks import Vocabulary

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
    data: Samples,
    count: int,
    kind: Kind,
    *,
    classes: int,
    generator: torch.Generator,
    words: Vocabulary | None = None,
) -> tuple[Samples, Candidates]:
    """Candidates for a client, and its own data without them.

    Args:
        data: N of the client's records.
        count: how many candidates; at most half of N are taken out of the data.
        kind: what they are; those out of distribution leave the data whole.
        classes: C >= 2.
        generator: which records, which labels, which coins.
        words: of texts; noise is then tokens in place of those of a record, whose marks stay.

    Returns:
        The data that stays, and the candidates, of which the client also learns `learnt`.
    """
    if kind == "out-of-distribution":
        if words is None:
            x = torch.rand(count, *shape_of(data.x), generator=generator)
        else:
            x = _random_texts(data, count, words, generator)
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


def _random_texts(
    data: Samples, count: int, words: Vocabulary, generator: torch.Generator
) -> Tensor:
    """Texts as long as the data's, of tokens drawn from all but marks: int64 (count, ...)."""
    like = whole(data.subset(torch.randint(len(data), (count,), generator=generator)).x)
    marks = torch.tensor([words.padding, words.start, words.end])
    tokens = torch.arange(words.size)
    tokens = tokens[~torch.isin(tokens, marks)]
    drawn = tokens[torch.randint(len(tokens), like.shape, generator=generator)]
    return torch.where(torch.isin(like, marks), like, drawn)


def _coins(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator) < 0.5
