"""Scores of what a model writes, by the library sacrebleu: texts against texts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fedkd import optional
from fedkd.specs import TensorSpec
from fedkd.tasks.base import Score, Task
from fedkd.tasks.likelihoods.categorical import IGNORED

Decode = Callable[[Tensor], list[str]]
"""Token numbers (N, T) -> N texts, without marks and what stands after the end."""
_ORDERS = 4
_CHARACTERS = 6


def _untold(_ids: Tensor, _targets: Tensor) -> Tensor:
    raise ValueError("Expected a tokeniser: a score of texts tallies none of numbers before.")


@dataclass(frozen=True)
class TextScore(Score):
    """A score before it is known which tokeniser makes texts of numbers; see `of_task`.

    Attributes:
        compared: (N texts written, N texts wanted) -> counters.
        most: (N texts wanted, the most characters that can be written) -> the most that each
            counter can be.
    """

    compared: Callable[[list[str], list[str]], Tensor] = field(kw_only=True)
    most: Callable[[list[str], int], Tensor] = field(kw_only=True)

    def of_task(self, task: Task, decode: Decode) -> Score:
        """The same of token numbers that a model of the task writes, and of targets (N, T)."""
        words = task.vocabulary
        if words is None:
            raise ValueError("Expected a task of texts, of one vocabulary.")

        def wanted(targets: Tensor) -> list[str]:
            return decode(targets.masked_fill(targets == IGNORED, words.padding))

        # A token is written as no more than its name, and a blank before it.
        longest = task.answer[0] * (1 + max(map(len, task.names)))

        return Score(
            self.name,
            lambda ids, targets: self.compared(decode(ids), wanted(targets)),
            self.read,
            self.counts,
            lambda targets: self.most(wanted(targets), longest * len(targets)),
            written=task,
        )


def bleu(_tokens: int) -> Score:
    """Corpus BLEU over 100, with sacrebleu's defaults: words by 13a, up to four in a row.

    Papineni et al. 2002, ACL; Post 2018, arXiv:1804.08771. Counters, int64 (10,), are the lengths
    written and wanted, and for each order how many n-grams are right and how many were written.
    What was wanted is read from the totals, whatever the counters say.
    """

    def compared(written: list[str], wanted: list[str]) -> Tensor:
        found = _metrics().BLEU(force=True).corpus_score(written, [wanted])
        return torch.tensor([found.sys_len, found.ref_len, *found.counts, *found.totals]).long()

    def most(wanted: list[str], characters: int) -> Tensor:
        _, length, *counts = compared(wanted, wanted).tolist()
        bounds = [characters, length, *counts[:_ORDERS], *[characters] * _ORDERS]
        return torch.tensor(bounds, dtype=torch.float64)

    def read(counters: Tensor, totals: Tensor) -> Mapping[str, Any]:
        written, compared_with, *counts = counters.tolist()
        if not compared_with:
            return {"bleu": None}
        found = _metrics().BLEU.compute_bleu(
            counts[:_ORDERS], counts[_ORDERS:], written, int(totals[1])
        )
        return {"bleu": _share(found)}

    spec = TensorSpec((2 + 2 * _ORDERS,), torch.int64, low=0)
    return TextScore("bleu", _untold, read, spec, compared=compared, most=most)


def chrf(_tokens: int) -> Score:
    """Corpus chrF over 100, with sacrebleu's defaults: up to six characters in a row, beta 2.

    Popovic 2015, WMT. Counters, int64 (18,), are for each order how many n-grams were written, were
    wanted, and are right. What was wanted is read from the totals, whatever the counters say.
    """

    def compared(written: list[str], wanted: list[str]) -> Tensor:
        # The library's figure is of these sums, for which it has no public name.
        rows = _metrics().CHRF()._extract_corpus_statistics(written, [wanted])
        return torch.tensor(rows).sum(dim=0)

    def most(wanted: list[str], characters: int) -> Tensor:
        bounds = compared(wanted, wanted).double().reshape(_CHARACTERS, 3)
        bounds[:, 0] = characters
        return bounds.flatten()

    def read(counters: Tensor, totals: Tensor) -> Mapping[str, Any]:
        if not counters[1]:
            return {"chrf": None}
        known = counters.clone()
        known[1::3] = totals[1::3].long()
        return {"chrf": _share(_metrics().CHRF()._compute_score_from_stats(known.tolist()))}

    spec = TensorSpec((3 * _CHARACTERS,), torch.int64, low=0)
    return TextScore("chrf", _untold, read, spec, compared=compared, most=most)


def _metrics() -> Any:
    return optional.load("sacrebleu.metrics", extra="text")


def _share(found: Any) -> float:
    """A figure of the library over 100; it may round above that."""
    return float(min(1.0, found.score / 100))
