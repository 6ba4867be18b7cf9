"""The audits of the command line, by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any, Literal, overload

from fedkd.api import settings, showing
from fedkd.api.settings import Config, Overrides
from fedkd.api.showing import Progress
from fedkd.auditing.candidates import Kind
from fedkd.auditing.findings import Audited
from fedkd.auditing.verdicts import CONFIDENCE
from fedkd.config import Experiment
from fedkd.config.overrides import Override
from fedkd.errors import UsageError
from fedkd.federation.prepare import PreparedExperiment
from fedkd.jobs.audit import messages, plan, poisoning, students, teachers
from fedkd.jobs.audit.canary_run import Canaries, record
from fedkd.jobs.audit.secrets import Secret, audit_secret
from fedkd.methods.core.forecast import Forecast
from fedkd.names import choices, look_beside
from fedkd.runs import ledgers
from fedkd.runs.ledgers import LedgerAccount

_Found = Audited | Forecast | tuple[LedgerAccount, ...]
AuditName = Literal[
    "exchange",
    "ledger",
    "mechanism",
    "plan",
    "poisoning",
    "report",
    "secret",
    "student",
    "teacher",
]


@overload
def audit(
    name: Literal["plan"],
    of: Config,
    /,
    overrides: Overrides = (),
    *,
    data: object = None,
    ledger: str | Path | None = None,
) -> Forecast: ...


@overload
def audit(name: Literal["ledger"], of: str | Path, /) -> tuple[LedgerAccount, ...]: ...


@overload
def audit(
    name: Literal["exchange", "mechanism", "poisoning", "report", "secret", "student", "teacher"],
    of: Config | None = None,
    /,
    overrides: Overrides = (),
    *,
    data: object = None,
    progress: Progress = True,
    **options: Any,
) -> Audited: ...


def audit(
    name: AuditName,
    of: Config | None = None,
    /,
    overrides: Overrides = (),
    *,
    data: object = None,
    progress: Progress = True,
    **options: Any,
) -> _Found:
    """What an experiment costs in privacy, or what an attacker really gets.

        fedkd.audit("teacher", "private", canaries=500)

    Args:
        name: as `fedkd audit` has it.
        of: an experiment (`plan`, `teacher`, `secret`, `poisoning`), a run (`student`), either
            (`exchange`, `report`), a ledger or a run (`ledger`); of `mechanism` nothing.
        overrides: changes of an experiment, by a key's path.
        data: as of `fedkd.simulate`, of an experiment.
        progress: as of `fedkd.simulate`.
        options: as the options of `fedkd audit NAME`: `out`, `confidence`, `canaries`, ...

    Returns:
        Verdicts and what attacks got; of `plan` a forecast, of `ledger` what each ledger holds. A
        violation is a verdict here and no error.

    Raises:
        UsageError: an unknown audit or option, or it does not suit the experiment.
    """
    if name not in _AUDITS:
        raise UsageError(f"unknown audit {name!r}: {choices(name, _AUDITS)}")
    run = _AUDITS[name]
    _, *known = signature(run).parameters
    for option in options:
        if option not in known:
            raise UsageError(
                f"unknown option {option!r} of audit {name!r}: {choices(option, known)}"
            )
    with settings.overriding(overrides, {}, data) as said:
        found: _Found = run(_Call(name, of, said, progress), **options)
        return found


@dataclass(frozen=True)
class _Call:
    """What all audits are called with."""

    name: str
    of: Config | None
    said: Sequence[Override]
    progress: Progress

    @property
    def experiment(self) -> Experiment:
        """The experiment that is audited."""
        if self.of is None:
            raise UsageError(f"audit {self.name!r} is of an experiment: name one")
        return settings.experiment(self.of, self.said)

    @property
    def path(self) -> Path:
        """The run, or the ledger, that is audited."""
        if not isinstance(self.of, str | Path):
            raise UsageError(f"audit {self.name!r} is of a folder or a file: name its path")
        path = Path(self.of).expanduser()
        if path.is_dir():
            look_beside(Path())  # a run may be anybody's
        return path


def _plan(call: _Call, *, ledger: str | Path | None = None) -> Forecast:
    return plan.forecast(call.experiment, None if ledger is None else Path(ledger))


def _ledger(call: _Call) -> tuple[LedgerAccount, ...]:
    return tuple(ledgers.read(call.path))


def _mechanism(
    _call: _Call,
    *,
    noise_multiplier: float = 1.0,
    draws: int = 20_000,
    delta: float = 1e-5,
    confidence: float = CONFIDENCE,
) -> Audited:
    return teachers.audit_mechanism(
        noise_multiplier=noise_multiplier, draws=draws, delta=delta, confidence=confidence
    )


def _teacher(call: _Call, *, canaries: int = 2000, confidence: float = CONFIDENCE) -> Audited:
    experiment = call.experiment
    with showing.phases(call.progress) as notify:
        return teachers.audit_teacher(experiment, notify, canaries=canaries, confidence=confidence)


def _exchange(
    call: _Call,
    *,
    out: str | Path | None = None,
    candidates: int = 100,
    kind: Kind = "records",
    references: int = 8,
    confidence: float = CONFIDENCE,
) -> Audited:
    run = _recorded(call, Canaries(candidates, kind), out, check=messages.check_readable)
    with showing.phases(call.progress) as notify:
        return messages.audit_exchange(run, notify, count=_even(references), confidence=confidence)


def _student(call: _Call, *, references: int = 8, confidence: float = CONFIDENCE) -> Audited:
    with showing.phases(call.progress) as notify:
        return students.audit_student(
            call.path, notify, count=_even(references), confidence=confidence
        )


def _report(
    call: _Call,
    *,
    out: str | Path | None = None,
    candidates: int = 100,
    kind: Kind = "records",
    references: int = 8,
    poisoned: str | Path | None = None,
    confidence: float = CONFIDENCE,
) -> Audited:
    run = _recorded(call, Canaries(candidates, kind), out)
    with showing.phases(call.progress) as notify:
        return teachers.audit_all(
            run,
            notify,
            count=_even(references),
            confidence=confidence,
            poisoned=None if poisoned is None else Path(poisoned),
        )


def _secret(
    call: _Call,
    *,
    out: str | Path | None = None,
    text: str = Secret.text,
    digits: int = Secret.digits,
    secrets: int = Secret.secrets,
    times: int = Secret.times,
    client: int = Secret.client,
    label: str | None = None,
    confidence: float = CONFIDENCE,
) -> Audited:
    experiment = call.experiment
    folder = settings.run_folder(experiment, out, also="-secret")
    planted = Secret(text, digits, secrets, times, client, label)
    with showing.rounds(experiment, call.progress) as observer:
        return audit_secret(experiment, planted, folder, observer, confidence=confidence)


def _poisoning(
    call: _Call,
    *,
    out: str | Path | None = None,
    attacks: Sequence[str] = (),
    shares: Sequence[float] = poisoning.Plan.shares,
    defence: bool | None = None,
    seeds: int = 1,
    resume: bool = False,
) -> Audited:
    experiment = call.experiment
    folder = settings.run_folder(experiment, out, also="-poisoning")
    defences = (False, True) if defence is None else (defence,)
    planned = poisoning.Plan(tuple(attacks), tuple(shares), defences, seeds)
    with showing.phases(call.progress) as notify:
        return poisoning.audit_poisoning(experiment, planned, folder, notify, resume=resume)


_AUDITS: Mapping[str, Callable[..., Any]] = {
    "exchange": _exchange,
    "ledger": _ledger,
    "mechanism": _mechanism,
    "plan": _plan,
    "poisoning": _poisoning,
    "report": _report,
    "secret": _secret,
    "student": _student,
    "teacher": _teacher,
}


def _even(references: int) -> int:
    """Reference models come in pairs: a candidate is in one and not in the other."""
    return references + references % 2


def _recorded(
    call: _Call,
    canaries: Canaries,
    out: str | Path | None,
    *,
    check: Callable[[PreparedExperiment], None] = lambda _: None,
) -> Path:
    """A run with candidates and with a server that keeps every message: that one, or a new one."""
    if isinstance(call.of, str | Path) and call.path.is_dir():
        return call.path
    experiment = call.experiment
    run = settings.run_folder(experiment, out, also="-audit")
    with showing.rounds(experiment, call.progress) as observer:
        record(experiment, canaries, run, observer, check=check)
    return run
