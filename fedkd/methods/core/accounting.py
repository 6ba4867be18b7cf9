"""What an experiment costs in privacy: the events of a round, the whole plan, and its noise.

Under `record` each client trains by DP-SGD, or has teachers vote, and pays for the counts and sums
that it sends, once each. Under `client-votes` and `client-logits` the server adds noise to what it
combines. What a method may send unpaid is nothing: see `fedkd.exchange.gate`.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

from fedkd.config import Experiment, Privacy
from fedkd.methods.core.base import Method
from fedkd.methods.core.setting import EACH_ROUND, Setting
from fedkd.methods.core.signal import of_answers, of_records
from fedkd.privacy import accountant
from fedkd.privacy.budget import Budget
from fedkd.privacy.calibration import noise_for
from fedkd.privacy.events import Adjacency, Protected, Unit
from fedkd.privacy.signal import Signal


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
    anew = card.sums if setting.securely else EACH_ROUND
    sums = [setting.summing(what) for what in card.sums if what in anew or what not in kept]
    learning = [setting.training] if card.has_teachers else []
    if (votes := method.voting(setting)) is not None:
        learning = [votes.event(setting)]
    return [*learning, *counts, *sums]


def plan(method: Method, setting: Setting) -> list[Protected]:
    """What the whole experiment costs, spare rounds included."""
    experiment = setting.experiment
    once = (*method.card.counts, *method.card.sums)
    first, later = round_events(method, setting), round_events(method, setting, once)
    # Each stage's records are others, of which counts and sums are drawn anew. To count all stages
    # for each record is more than it costs, and right too for one that comes in several.
    stages = 1 if setting.stages is None else len(setting.stages)
    # A first round that is cut off has to draw its counts and sums anew.
    return first * (stages + experiment.privacy.spare_rounds) + later * (experiment.rounds - stages)


def with_noise(setting: Setting, noise: float) -> Setting:
    """The setting with this noise multiplier."""
    experiment: Experiment = setting.experiment
    privacy = experiment.privacy.model_copy(update={"noise_multiplier": noise})
    return replace(setting, experiment=experiment.model_copy(update={"privacy": privacy}))


def noise_needed(
    method: Method, setting: Setting, allowed: Budget, spent: Sequence[Protected] = ()
) -> float:
    """The least noise multiplier with which the plan fits the budget, on top of what is `spent`.

    Raises:
        BudgetError: no noise is enough.
    """

    def planned(noise: float) -> list[Protected]:
        return plan(method, with_noise(setting, noise))

    return noise_for(allowed, planned, spent=spent)


def cost(events: Sequence[Protected], allowed: Budget, spent: Sequence[Protected]) -> float:
    """What events cost that begin with what is `spent`, as a ledger enforces it."""
    if spent:
        return accountant.filter_epsilon(events, allowed)
    return accountant.epsilon(events, allowed.delta)


def signal(method: Method, setting: Setting) -> Signal:
    """How far what is to be learned can stand out of the noise, once that is resolved."""
    if setting.experiment.privacy.unit == "record":
        return of_records(method, setting)
    return of_answers(setting, _rows(method, setting))


def least_epsilon(
    method: Method,
    setting: Setting,
    told: Signal,
    allowed: Budget,
    spent: Sequence[Protected] = (),
) -> float:
    """What the plan costs at the most noise through which anything can be learned."""
    noise = setting.experiment.privacy.noise_multiplier or 0.0
    loudest = with_noise(setting, told.loudest(noise))
    return cost([*spent, *plan(method, loudest)], allowed, spent)


def _rows(method: Method, setting: Setting) -> int:
    """How many rows the server combines in a round: those over classes of the one tensor sent."""
    [answers] = method.expects(setting, client=0).values()
    return math.prod(answers.shape[:-1])
