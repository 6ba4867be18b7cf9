"""What came of an audit."""

from dataclasses import dataclass
from pathlib import Path

from fedkd.auditing.exposure import Exposure
from fedkd.auditing.inversion import Inversion
from fedkd.auditing.labels import LabelInference
from fedkd.auditing.membership import Attack
from fedkd.auditing.poisoning.outcomes import Poisoning
from fedkd.auditing.verdicts import Check, Claim, Verdict


@dataclass(frozen=True)
class Audited:
    """Verdicts on figures, checks of structure, and what attacks got."""

    verdicts: tuple[Verdict, ...] = ()
    checks: tuple[Check, ...] = ()
    attacks: tuple[Attack, ...] = ()
    labels: LabelInference | None = None
    inversions: tuple[Inversion, ...] = ()
    exposures: tuple[Exposure, ...] = ()
    poisoning: Poisoning | None = None
    notes: tuple[str, ...] = ()
    """What was not tried, and why."""
    page: Path | None = None
    """Where the page about it is, if one was written."""

    def __add__(self, other: "Audited") -> "Audited":
        """Both, this one's first."""
        return Audited(
            self.verdicts + other.verdicts,
            self.checks + other.checks,
            self.attacks + other.attacks,
            self.labels or other.labels,
            self.inversions + other.inversions,
            self.exposures + other.exposures,
            self.poisoning or other.poisoning,
            self.notes + other.notes,
        )

    @property
    def outcomes(self) -> tuple[Verdict | Check, ...]:
        """All that ends in a verdict."""
        attacked = (each.verdict for each in self.attacks if each.verdict is not None)
        exposed = (each.verdict for each in self.exposures if each.verdict is not None)
        return (*self.verdicts, *self.checks, *attacked, *exposed)

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The claims of the attacks, each once."""
        claims = (each.verdict.claim for each in self.attacks if each.verdict is not None)
        return tuple(dict.fromkeys(claims))
