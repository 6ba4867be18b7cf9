"""What a sweep over private data cost that data: all its runs together, failed ones too.

Each run releases something of the same records, and whoever chooses among runs has seen them all.
The best of them is no cheaper than all: its own epsilon holds for a run that was not chosen.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedkd import config
from fedkd.config import Distillation, Experiment
from fedkd.errors import LedgerError, UsageError
from fedkd.runs import ledgers
from fedkd.runs.reading import parse, text
from fedkd.runs.schema import PrivacySummary
from fedkd.runs.scores import RunPart


@dataclass(frozen=True)
class Cost:
    """Epsilon, infinite where a ledger cannot be believed, and delta."""

    epsilon: float = 0.0
    delta: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.epsilon + other.epsilon, self.delta + other.delta)


@dataclass(frozen=True)
class SweepSpending:
    """What was spent in all."""

    private: int
    """Runs with a budget."""
    bare: int
    """Runs without."""
    own: Cost
    """Of the runs that keep ledgers of their own, added up."""
    shared: Mapping[str, Cost]
    """Of each folder of ledgers that runs share, whatever run spent it."""

    @property
    def every(self) -> float:
        """Epsilon of all together."""
        return self.own.epsilon + sum(cost.epsilon for cost in self.shared.values())


class _Told(RunPart):
    """The part of either kind of summary that is read here."""

    privacy: PrivacySummary


def spent(folders: Sequence[Path]) -> SweepSpending:
    """What runs spent, also those that did not come to their end; those without a folder did not.

    Epsilons of single runs add up, and so do deltas (basic composition; Dwork & Roth 2014, theorem
    3.16): of a run the largest over its clients, since a record is one client's in it, and may be
    another's in the next.

    Raises:
        RunFolderError: a run's config.toml or summary.json is damaged.
    """
    bare, private, cost, shared = 0, 0, Cost(), dict[str, Path]()
    for folder in folders:
        if not (folder / "config.toml").exists():
            continue
        kept = config.load_either(folder / "config.toml")
        if kept.privacy is None or kept.privacy.epsilon is None:
            bare += 1
            continue
        private += 1
        if kept.privacy.ledger is None:
            cost = cost + _of_run(folder, kept)
        else:
            shared[kept.privacy.ledger] = Path(kept.privacy.ledger).expanduser()
    return SweepSpending(private, bare, cost, {n: _counted(each) for n, each in shared.items()})


def in_words(told: SweepSpending) -> tuple[str, str]:
    """A stamp of two or three words, and what it means."""
    if not told.private:
        return "NO DP", (
            "No differential privacy in any of these runs: what left the clients, or was learnt, "
            "is not protected by noise."
        )
    said = []
    if told.own.epsilon:
        said.append(
            "These runs are releases of the same data, each by ledgers of its own: together they "
            f"cost it {_figure(told.own)}, the sum of all runs, failed ones too."
        )
    said += [
        f"The ledger in {name!r}, which runs share, counts {_figure(cost)}, by whatever run."
        for name, cost in told.shared.items()
    ]
    said.append(
        "Whoever chooses among runs has seen all of them, so the chosen student costs what all "
        "cost, and not its own run's epsilon."
    )
    if told.bare:
        said.append(f"NO DP in {told.bare} of these runs, which nothing bounds.")
    return "NO DP" if told.bare else f"epsilon {told.every:.4g}", " ".join(said)


def _figure(cost: Cost) -> str:
    return f"epsilon {cost.epsilon:.4g} at delta {cost.delta:.3g}"


def _of_run(folder: Path, kept: Experiment | Distillation) -> Cost:
    """What a run spent, by its summary, or by its ledgers where it did not come to its end."""
    summary = folder / "summary.json"
    if summary.exists():
        told = parse(_Told, text(summary), summary).privacy
        return Cost(told.epsilon or 0.0, told.delta or 0.0)
    distilled = isinstance(kept, Distillation)
    return _counted(folder / "checkpoints" / "ledger.db" if distilled else folder)


def _counted(place: Path) -> Cost:
    """The account with the most spent of some ledgers, one that cannot be believed being that."""
    try:
        accounts = [each.statement for each in ledgers.read(place)]
    except UsageError:
        return Cost()  # no ledger: nothing was touched
    except LedgerError:
        return Cost(math.inf)
    counted = [Cost(math.inf if a.enforced is None else a.enforced, a.delta or 0) for a in accounts]
    return max(counted, key=lambda each: each.epsilon, default=Cost())
