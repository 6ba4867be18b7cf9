"""What an experiment will cost in privacy, said before anything runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedkd.errors import ConfigError
from fedkd.methods.core import accounting
from fedkd.methods.core.base import Method
from fedkd.methods.core.protection import check, check_fixed_point
from fedkd.methods.core.setting import Setting
from fedkd.privacy import accountant
from fedkd.privacy.budget import Budget
from fedkd.privacy.events import Adjacency, Gaussian, Protected, Unit, grouped
from fedkd.privacy.signal import Signal
from fedkd.privacy.statement import FILTER, PLD


@dataclass(frozen=True)
class ForecastTerm:
    """One kind of event in a plan: all its steps together, and what they would cost alone."""

    what: str
    mechanism: str
    noise_multiplier: float
    sample_rate: float
    steps: int
    epsilon: float


@dataclass(frozen=True)
class Forecast:
    """What an experiment will cost each party that spends, by the plan that it would write down."""

    unit: Unit
    adjacency: Adjacency
    delta: float
    epsilon: float
    """Of the plan, what was spent before included, as a ledger will enforce it."""
    enforced_by: str
    """`PLD`, or `FILTER` where something was spent before."""
    epsilon_rdp: float
    budget: float
    noise_multiplier: float
    """That the plan has: the experiment's own, or what its budget needs."""
    noise_needed: float
    """The least with which the plan fits the budget."""
    signal: Signal
    epsilon_needed: float | None
    """Where the plan is hopeless, the least epsilon with which it is not."""
    terms: tuple[ForecastTerm, ...]


def forecast_plan(method: Method, setting: Setting, spent: Sequence[Protected] = ()) -> Forecast:
    """What the experiment will cost on top of `spent`; it may be more than its budget.

    Raises:
        ConfigError: nothing is protected, or the method or a model cannot be.
        BudgetError: no noise is enough.
    """
    privacy = setting.experiment.privacy
    allowed = accounting.budget(privacy)
    if allowed is None:
        raise ConfigError(
            "privacy.unit is 'none': NO DP, epsilon is infinite and there is nothing to plan; name "
            "a budget, such as --set privacy.epsilon=8"
        )
    check(method, setting)
    needed = accounting.noise_needed(method, setting, allowed, spent)
    if privacy.noise_multiplier is None:
        setting = accounting.with_noise(setting, needed)
    check_fixed_point(method, setting)
    planned = [*spent, *accounting.plan(method, setting)]
    told = accounting.signal(method, setting)
    return Forecast(
        unit=allowed.unit,
        adjacency=allowed.adjacency,
        delta=allowed.delta,
        epsilon=accounting.cost(planned, allowed, spent),
        enforced_by=FILTER if spent else PLD,
        epsilon_rdp=accountant.epsilon_rdp(planned, allowed.delta),
        budget=allowed.epsilon,
        noise_multiplier=setting.experiment.privacy.noise_multiplier or needed,
        noise_needed=needed,
        signal=told,
        epsilon_needed=accounting.least_epsilon(method, setting, told, allowed, spent)
        if told.hopeless
        else None,
        terms=_terms(planned, allowed),
    )


def _terms(events: Sequence[Protected], allowed: Budget) -> tuple[ForecastTerm, ...]:
    return tuple(
        ForecastTerm(
            what=event.what,
            mechanism=type(event).__name__.lower(),
            noise_multiplier=event.noise_multiplier,
            sample_rate=event.sample_rate if isinstance(event, Gaussian) else 1.0,
            steps=steps,
            epsilon=accountant.epsilon([replace(event, steps=steps)], allowed.delta),
        )
        for event, steps in grouped(events).items()
    )
