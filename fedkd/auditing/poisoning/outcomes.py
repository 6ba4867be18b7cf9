"""What came of an attack on a federation, in figures."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedkd.tasks import Figures, mean_of

HONEST = "honest"
"""The row of runs in which nobody is hostile."""


@dataclass(frozen=True)
class Poisoned:
    """One run under attack, or the honest one.

    Attributes:
        attack: its name; `HONEST` where nobody is hostile.
        share: of clients that are hostile, as asked for; 0 of an honest run.
        defended: whether the server defends itself by `[robust]`.
        seed: the experiment's.
        hostile: which clients.
        score: the student's headline score in the end; None where the run stopped.
        success: how often the backdoor opens, in [0, 1]; None where no trigger fits the records.
        refused: uploads that the door refused.
        caught: uploads of hostile clients that the server left out.
        wronged: the same of honest clients.
        stopped: what ended the run before its last round; nothing where nothing did.
    """

    attack: str
    share: float
    defended: bool
    seed: int
    hostile: tuple[int, ...] = ()
    score: float | None = None
    success: float | None = None
    refused: int = 0
    caught: int = 0
    wronged: int = 0
    stopped: str = ""

    @property
    def cell(self) -> tuple[str, float, bool, int]:
        """What the run is of all that are planned."""
        return self.attack, self.share, self.defended, self.seed


@dataclass(frozen=True)
class Poisoning:
    """A federation under attacks.

    Attributes:
        runs: in the order of the table.
        score: what the students are scored by.
        target: the name of the class that colluders call and backdoors mean.
        clients: how many.
    """

    runs: tuple[Poisoned, ...]
    score: Figures
    target: str
    clients: int


@dataclass(frozen=True)
class PoisoningRow:
    """An attack by a share of the clients, over seeds: with and without defence.

    Scores are means over seeds, a run that stopped left out; None where there is none.
    """

    attack: str
    share: float
    bare: float | None
    defended: float | None
    bare_success: float | None
    defended_success: float | None
    stopped: int
    caught: int
    wronged: int


def rows(found: Poisoning) -> list[PoisoningRow]:
    """The table: the honest runs first, then attack by attack, by share."""
    pairs = dict.fromkeys((each.attack, each.share) for each in found.runs)
    return [_row([r for r in found.runs if (r.attack, r.share) == pair]) for pair in pairs]


def _row(runs: Sequence[Poisoned]) -> PoisoningRow:
    bare = [each for each in runs if not each.defended]
    defended = [each for each in runs if each.defended]
    return PoisoningRow(
        runs[0].attack,
        runs[0].share,
        mean_of([each.score for each in bare]),
        mean_of([each.score for each in defended]),
        mean_of([each.success for each in bare]),
        mean_of([each.success for each in defended]),
        sum(bool(each.stopped) for each in runs),
        sum(each.caught for each in defended),
        sum(each.wronged for each in defended),
    )
