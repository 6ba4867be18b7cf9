"""Who is scored in which round, and on which test records: what `[output] evaluate` comes to.

Clients and server work it out alike, from what all of them hold, so that a server expects exactly
the scores that clients send. A score costs an answer to each test record, and of 10,000 records
and ten clients that is nine times what a round's training of a small CNN costs. So where a test set
is large, or clients are many, teachers are scored in the last round alone unless the experiment
says otherwise, and what is scored before that is scored on a part of the test set.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fedkd import rng
from fedkd.config import Evaluation
from fedkd.data.types import Samples
from fedkd.federation import personal
from fedkd.learning import evaluate
from fedkd.methods.core.base import Setting

_FEW_RECORDS = 2000
"""Test records on which models are scored before the last round, unless the experiment says how
many: the standard error of a share of so many is one point."""
_FEW_CLIENTS = 100
"""Of so many at most all teachers are scored in every round, unless the experiment says whose."""


@dataclass(frozen=True, eq=False)
class Scoring:
    """An experiment's scoring, to the round, the client and the record."""

    setting: Setting
    test: Samples
    """The whole test set."""

    @property
    def _how(self) -> Evaluation:
        return self.setting.experiment.output.evaluate or Evaluation()

    @property
    def _few(self) -> bool:
        """Whether scoring everybody on everything costs little."""
        return len(self.test) <= _FEW_RECORDS and self.setting.clients <= _FEW_CLIENTS

    @property
    def _whose(self) -> Any:
        return self._how.clients or ("all" if self._few else "last")

    @property
    def _size(self) -> int:
        """How many records there are before the last round."""
        size = self._how.test_size
        if size is None:
            # A score of pairs is another score where there are fewer of them.
            together = any(score.together for score in self.setting.task.scores)
            size = "all" if together else _FEW_RECORDS
        return len(self.test) if size == "all" else min(size, len(self.test))

    def last(self, round: int) -> bool:
        """Whether what is learned in a round may be what the run ends with.

        Where rounds are asynchronous so may be what a client learns that is a few steps late.
        """
        how = self.setting.experiment.clients.asynchronous
        late = 0 if how is None else how.staleness
        return round >= self.setting.experiment.rounds - late

    def whole(self, round: int) -> bool:
        """Whether scores of a round are of the whole test set."""
        return self._ends(round) or self._size == len(self.test)

    def happens(self, round: int) -> bool:
        """Whether anybody is scored in a round; the student then is."""
        return self._ends(round) or round % self._how.every == 0

    def _ends(self, round: int) -> bool:
        """Whether the run ends with a round, or a stage of its data does."""
        stages = self.setting.stages
        stage_ends = stages is not None and stages.at(round) != stages.at(round + 1)
        return stage_ends or self.last(round)

    def of(self, client: int, round: int) -> bool:
        """Whether a client says how its teacher does, after what it learns in a round."""
        whose = self._whose
        if not self.happens(round) or whose == "none":
            return False
        if whose == "last":
            return self.last(round)
        return whose == "all" or client in self._drawn(whose, round)

    def personal(self, round: int) -> bool:
        """Whether clients say in a round how their teachers do on held-out records of their own."""
        return personal.are_sent(self.setting.experiment) and self.happens(round)

    def _drawn(self, count: int, round: int) -> set[int]:
        cohort = self.setting.cohort(round)
        seed = self.setting.experiment.seed
        generator = rng.stream(seed, purpose="scored clients", round=round)
        return {cohort[i] for i in torch.randperm(len(cohort), generator=generator)[:count]}

    def records(self, round: int) -> Samples:
        """The test records that a round's scores are of."""
        return self.test if self.whole(round) else self._some

    def totals(self, round: int) -> Mapping[str, Tensor]:
        """What counters of these records can be, by the name of the score's figure."""
        return self._whole_totals if self.whole(round) else self._some_totals

    @cached_property
    def _whole_totals(self) -> Mapping[str, Tensor]:
        return evaluate.totals(self.test, self.setting.task.scores)

    @cached_property
    def _some_totals(self) -> Mapping[str, Tensor]:
        return evaluate.totals(self._some, self.setting.task.scores)

    @cached_property
    def _some(self) -> Samples:
        return self.test.subset(self._rows())

    def _rows(self) -> Tensor:
        """Rows of the test set, (`_size`,): of each stage its share, and one at least."""
        generator = rng.stream(self.setting.experiment.seed, purpose="test records")
        order = torch.randperm(len(self.test), generator=generator)
        if (stage := self.test.stage) is None:
            return order[: self._size].sort().values
        parts = [order[stage[order] == each] for each in sorted(set(stage.tolist()))]
        shares = [max(1, round(len(p) * self._size / len(self.test))) for p in parts]
        return torch.cat([p[:s] for p, s in zip(parts, shares, strict=True)]).sort().values
