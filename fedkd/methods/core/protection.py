"""What an experiment costs in privacy: the events of a round, the whole plan, and its noise.

Under `record` each client trains by DP-SGD and pays for the counts and sums that it sends, once
each. Under `client-votes` and `client-logits` the server adds noise to what it combines. What a
method may send unpaid is nothing: see `fedkd.exchange.gate`.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from fedkd.config import Experiment, Privacy
from fedkd.errors import BudgetError, ConfigError
from fedkd.exchange.masks import RESOLUTION, most
from fedkd.learning.dp.checks import blaming, check_features, check_model
from fedkd.methods.core.base import Method
from fedkd.methods.core.setting import Setting
from fedkd.methods.core.signal import of_answers, of_records
from fedkd.privacy import accountant
from fedkd.privacy.budget import Budget
from fedkd.privacy.calibration import noise_for
from fedkd.privacy.events import Adjacency, Gaussian, Protected, Unit, grouped
from fedkd.privacy.mechanisms import most_laplace
from fedkd.privacy.signal import Signal, hopeless
from fedkd.privacy.size import check_ceiling, check_delta
from fedkd.privacy.statement import FILTER, PLD


def budget(privacy: Privacy) -> Budget | None:
    """The budget that an experiment names; None where nothing is protected."""
    if privacy.epsilon is None:
        return None
    unit: Unit = "record" if privacy.unit == "record" else "client"
    # An answer is changed, not added or left out, as in PATE, arXiv:1802.08908: how many clients
    # answered shows in the mean, and in the scale of the noise on it.
    adjacency: Adjacency = "add-remove" if unit == "record" else "replace-one"
    return Budget(privacy.epsilon, privacy.delta, unit, adjacency)


def round_events(method: Method, setting: Setting, kept: Collection[str] = ()) -> list[Protected]:
    """What one round costs: a client under `record`, the server under the client units.

    Args:
        method: says which counts and sums are sent.
        setting: the experiment, its noise resolved.
        kept: names of what was released in an earlier round, as in the client's state; sending it
            again is free, but for sums under secure aggregation.
    """
    if setting.experiment.privacy.unit != "record":
        return [setting.combining(_rows(method, setting))]
    card = method.card
    counts = [setting.counting(what) for what in card.counts if what not in kept]
    anew = setting.securely
    sums = [setting.summing(what) for what in card.sums if anew or what not in kept]
    return [*([setting.training] if card.has_teachers else []), *counts, *sums]


def plan(method: Method, setting: Setting) -> list[Protected]:
    """What the whole experiment costs, spare rounds included."""
    experiment = setting.experiment
    once = (*method.card.counts, *method.card.sums)
    first, later = round_events(method, setting), round_events(method, setting, once)
    # A first round that is cut off has to draw its counts and sums anew.
    return first * (1 + experiment.privacy.spare_rounds) + later * (experiment.rounds - 1)


def resolve(method: Method, setting: Setting) -> Setting:
    """The setting with the noise that its budget needs, once it is sure that the budget holds.

    Raises:
        ConfigError: the method or a model cannot be protected, or the plan is hopeless.
        BudgetError: the plan costs more than the budget.
    """
    privacy = setting.experiment.privacy
    allowed = budget(privacy)
    if allowed is None:
        return setting
    check(method, setting)
    if privacy.noise_multiplier is None:
        setting = with_noise(setting, _needed(method, setting, allowed))
    elif (cost := _pld(plan(method, setting), allowed)) > allowed.epsilon:
        raise BudgetError(
            f"privacy.noise_multiplier = {privacy.noise_multiplier:g} makes the plan cost epsilon "
            f"{cost:.4g}: expected at most {allowed}; leave it out to have it computed, or plan "
            "fewer rounds or epochs"
        )
    _check_fixed_point(method, setting)
    if (told := signal(method, setting)).hopeless:
        raise hopeless(told, _least_epsilon(method, setting, told, allowed), allowed)
    return setting


def _check_fixed_point(method: Method, setting: Setting) -> None:
    """Refuse a share of the noise that is too fine or too large for secure aggregation's numbers.

    Each client rounds its own part, so that their sum is that of rounded noises; with 1,024 steps
    to a standard deviation it is the rounded sum's to far below delta (as of discrete noises,
    Kairouz et al. 2021, arXiv:2102.06387).
    """
    if not (setting.securely and method.card.sums):
        return
    clip, noise = setting.experiment.privacy.clip, setting.summing("sums of features")
    share = noise.noise_multiplier * setting.noise_share
    # The least that any entry of `knowledge.moments.protected` is given.
    least = min(clip, clip**2) * share / math.sqrt(2)
    if least < 1024 * RESOLUTION:
        raise ConfigError(
            f"privacy.clip is {clip:g}, and a client's share of the noise could be {least:.2g}: "
            f"secure aggregation carries steps of {RESOLUTION:.2g}, expected at least 1,024 of "
            "them; take features of a larger scale and a larger clip"
        )
    # No noise may leave the other half of the range, which `ClientContext.moments` keeps free: 100
    # of what any entry is given, unless the intercept or the balance is far from 1.
    largest, room = max(clip, clip**2) * share, most(setting.cohort_size) / 2
    if 100 * largest > room:
        raise ConfigError(
            f"privacy.clip is {clip:g}, and a client's share of the noise could be {largest:.2g}: "
            f"secure aggregation over {setting.cohort_size} clients has room for {room:.2g}, "
            "expected 100 times the noise; take features of a smaller scale and a smaller clip"
        )


def check_secure(setting: Setting) -> None:
    """Refuse secure aggregation whose sum could be of one client.

    Raises:
        ConfigError: one answer is enough for a round.
    """
    asked = setting.cohort_size
    if setting.securely and setting.quorum(asked) < 2:
        raise ConfigError(
            f"privacy.secure_aggregation adds up the answers of at least two clients, and "
            f"clients.quorum = {setting.experiment.clients.quorum:g} of the {asked} that are asked "
            "lets a round go on with one: raise clients.quorum, ask more clients, or leave it out"
        )


def check(method: Method, setting: Setting) -> None:
    """Refuse what no noise can protect: by the configuration alone, so that all parties agree.

    Raises:
        ConfigError: the method or a model cannot be protected, or delta is too large.
    """
    privacy = setting.experiment.privacy
    if privacy.unit == "record":
        check_delta(privacy)
        _check_count_noise(method, setting)
    elif privacy.delta * setting.clients >= 1:  # how many clients there are is public
        raise ConfigError(
            f"privacy.delta is {privacy.delta:g}, not below 1 / {setting.clients:,} (clients): at "
            "that size a mechanism may publish one of them outright; expected well below "
            f"{1 / setting.clients:.2g}"
        )
    else:
        check_ceiling(privacy)
    _check_method(method, setting)


def _check_count_noise(method: Method, setting: Setting) -> None:
    """Refuse noise on counts that is larger than any that is drawn; other noise is hopeless first.

    A draw would refuse it only when the ledger has paid for it.
    """
    noise = setting.experiment.privacy.count_noise
    for what in method.card.counts:
        most = most_laplace(setting.classes if what == "class counts" else 1)
        if noise > most:
            raise ConfigError(
                f"privacy.count_noise is {noise:g}: expected at most {most:g} for {what}, beyond "
                "which no noise is drawn"
            )


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


def forecast(method: Method, setting: Setting, spent: Sequence[Protected] = ()) -> Forecast:
    """What the experiment will cost on top of `spent`; it may be more than its budget.

    Raises:
        ConfigError: nothing is protected, or the method or a model cannot be.
        BudgetError: no noise is enough.
    """
    privacy = setting.experiment.privacy
    allowed = budget(privacy)
    if allowed is None:
        raise ConfigError(
            "privacy.unit is 'none': NO DP, epsilon is infinite and there is nothing to plan; name "
            "a budget, such as --set privacy.epsilon=8"
        )
    check(method, setting)
    needed = _needed(method, setting, allowed, spent)
    if privacy.noise_multiplier is None:
        setting = with_noise(setting, needed)
    _check_fixed_point(method, setting)
    planned = [*spent, *plan(method, setting)]
    told = signal(method, setting)
    return Forecast(
        unit=allowed.unit,
        adjacency=allowed.adjacency,
        delta=allowed.delta,
        epsilon=_cost(planned, allowed, spent),
        enforced_by=FILTER if spent else PLD,
        epsilon_rdp=accountant.epsilon_rdp(planned, allowed.delta),
        budget=allowed.epsilon,
        noise_multiplier=setting.experiment.privacy.noise_multiplier or needed,
        noise_needed=needed,
        signal=told,
        epsilon_needed=_least_epsilon(method, setting, told, allowed, spent)
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
            epsilon=_pld([replace(event, steps=steps)], allowed),
        )
        for event, steps in grouped(events).items()
    )


def signal(method: Method, setting: Setting) -> Signal:
    """How far what is to be learned can stand out of the noise, once that is resolved."""
    if setting.experiment.privacy.unit == "record":
        return of_records(method, setting)
    return of_answers(setting, _rows(method, setting))


def _least_epsilon(
    method: Method,
    setting: Setting,
    told: Signal,
    allowed: Budget,
    spent: Sequence[Protected] = (),
) -> float:
    """What the plan costs at the most noise through which anything can be learned."""
    noise = setting.experiment.privacy.noise_multiplier or 0.0
    loudest = with_noise(setting, told.loudest(noise))
    return _cost([*spent, *plan(method, loudest)], allowed, spent)


def _cost(events: Sequence[Protected], allowed: Budget, spent: Sequence[Protected]) -> float:
    """What events cost that begin with what is `spent`, as a ledger enforces it."""
    return accountant.filter_epsilon(events, allowed) if spent else _pld(events, allowed)


def _pld(events: Sequence[Protected], allowed: Budget) -> float:
    return accountant.epsilon(events, allowed.delta)


def _needed(
    method: Method, setting: Setting, allowed: Budget, spent: Sequence[Protected] = ()
) -> float:
    def planned(noise: float) -> list[Protected]:
        return plan(method, with_noise(setting, noise))

    return noise_for(allowed, planned, spent=spent)


def _check_method(method: Method, setting: Setting) -> None:
    """Refuse a method or a model that no noise can protect."""
    name, unit = setting.experiment.method.name, setting.experiment.privacy.unit
    if method.card.no_dp:
        raise ConfigError(f"method {name!r} cannot run under {unit!r}: {method.card.no_dp}")
    if unit == "record" and not (
        method.card.has_teachers or method.card.counts or method.card.sums
    ):
        raise ConfigError(
            f"method {name!r} touches no private data by its card, so there is nothing to protect: "
            "leave out [privacy]"
        )
    if unit != "record" and not method.card.client_units:
        raise ConfigError(
            f"method {name!r} cannot run under {unit!r}: its server part does not combine "
            "probabilities, which have a bounded norm; use 'dsfl', or unit = 'record'"
        )
    if unit == "record":
        _check_models(method, setting)


def _check_models(method: Method, setting: Setting) -> None:
    experiment, shape, like = setting.experiment, setting.shape, setting.examples
    if method.card.sums:
        spec = experiment.student.model
        with blaming("student.model", spec):
            check_features(setting.build(spec, purpose="specification"), shape, like=like)
    if not method.card.has_teachers:
        return
    models = experiment.clients.models[: setting.clients]
    for number, spec in enumerate(models):
        if spec in models[:number]:
            continue
        with blaming(f"clients.models[{number}]", spec):
            check_model(setting.build(spec, purpose="specification"), shape, like=like)


def with_noise(setting: Setting, noise: float) -> Setting:
    """The setting with this noise multiplier."""
    experiment: Experiment = setting.experiment
    privacy = experiment.privacy.model_copy(update={"noise_multiplier": noise})
    return replace(setting, experiment=experiment.model_copy(update={"privacy": privacy}))


def _rows(method: Method, setting: Setting) -> int:
    """How many rows the server combines in a round: those of the one tensor that clients send."""
    [answers] = method.expects(setting, client=0).values()
    return answers.shape[0]
