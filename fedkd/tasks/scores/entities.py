"""F1 of entities: runs of tags such as B-PER, I-PER, of which the whole must be right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedkd.specs import TensorSpec
from fedkd.tasks.base import Score
from fedkd.tasks.likelihoods.categorical import IGNORED, decide

_PREFIXES = "BIES"


@dataclass(frozen=True)
class _Scheme:
    """What tags say: at which place of a run a token stands, and of what kind the run is.

    Attributes:
        place: by tag, int64 (C,): of `_PREFIXES`, or 4 outside of all.
        kind: by tag, int64 (C,); -1 outside.
    """

    place: Tensor
    kind: Tensor


def _scheme(names: Sequence[str], outside: str) -> _Scheme:
    places, kinds, numbers = [], [], dict[str, int]()
    for name in names:
        prefix, dash, kind = name.partition("-")
        marked = bool(dash) and prefix in _PREFIXES and len(prefix) == 1
        places.append(4 if name == outside else _PREFIXES.index(prefix) if marked else 1)
        known = numbers.setdefault(kind if marked else name, len(numbers))
        kinds.append(-1 if name == outside else known)
    return _Scheme(torch.tensor(places), torch.tensor(kinds))


def entity_f1(names: Sequence[str], outside: str) -> Score:
    """F1 of entities, each right only where its first and last word and its kind are.

    An entity is a run of tags as conlleval (Tjong Kim Sang & De Meulder 2003, CoNLL) and seqeval's
    default mode read them: B or S begins one, E or S ends one, and so does another kind or the
    `outside` tag; I after another kind begins one. A tag without such a prefix is an I of its own
    name. Counters are right, true and answered entities, int64 (3,).

    Args:
        names: of the tags.
        outside: that of a token which is part of nothing.
    """
    scheme = _scheme(names, outside)

    def tally(answers: Tensor, targets: Tensor) -> Tensor:
        counts = targets != IGNORED
        words = counts.sum(dim=1)
        record = torch.arange(len(targets)).repeat_interleave(words)
        true = _entities(targets[counts], record, scheme)
        found = _entities(decide(answers)[counts], record, scheme)
        right = len(true & found)
        return torch.tensor([right, len(true), len(found)])

    def totals(targets: Tensor) -> Tensor:
        counts = targets != IGNORED
        record = torch.arange(len(targets)).repeat_interleave(counts.sum(dim=1))
        true = len(_entities(targets[counts], record, scheme))
        return torch.tensor([true, true, int(counts.sum())])

    def read(counters: Tensor, _totals: Tensor) -> dict[str, Any]:
        right, true, found = counters.tolist()
        return {"entity_f1": 2 * right / (true + found) if true + found else None}

    return Score("entity-f1", tally, read, TensorSpec((3,), torch.int64, low=0), totals)


def _entities(tags: Tensor, record: Tensor, scheme: _Scheme) -> set[tuple[int, int, int]]:
    """The entities of words one after the other, record after record: (first, last, kind)."""
    if len(tags) == 0:
        return set()
    place, kind = scheme.place[tags], scheme.kind[tags]
    new = torch.ones(len(tags), dtype=torch.bool)
    new[1:] = (
        (record[1:] != record[:-1])
        | (kind[1:] != kind[:-1])
        | ((place[1:] == 0) | (place[1:] == 3))
        | ((place[:-1] == 2) | (place[:-1] == 3))
    )
    firsts = new.nonzero()[:, 0]
    lasts = torch.cat([firsts[1:], torch.tensor([len(tags)])]) - 1
    runs = zip(firsts.tolist(), lasts.tolist(), kind[firsts].tolist(), strict=True)
    return {run for run in runs if run[2] >= 0}
