"""How far what a method is to learn can stand out of the noise of its plan."""

import math
from dataclasses import replace

from torch import nn

from fedkd.methods.core.base import Method
from fedkd.methods.core.setting import EACH_ROUND, Setting, Sum
from fedkd.methods.core.votes import Voting
from fedkd.models.heads import head, sizes
from fedkd.privacy.signal import Signal, of_steps
from fedkd.privacy.size import in_a_step, most_records

_LEAST_UNANIMITY = 3.0
"""Below this ratio of a unanimous answer to the noise on it, a student learns noise."""


def of_answers(setting: Setting, rows: int) -> Signal:
    """Of the server's noise on `rows` combined answers, under the client units."""
    experiment = setting.experiment
    sensitivity = math.sqrt(2 if experiment.privacy.unit == "client-votes" else 2 * rows)
    asked = experiment.clients.participation * setting.clients
    noise = setting.combining(rows).noise_multiplier * sensitivity
    return Signal(
        asked / noise,
        _LEAST_UNANIMITY,
        "a unanimous answer of all clients over the noise on it",
        "take more clients, fewer proxy samples or rounds, or unit = 'record'",
    )


def of_records(method: Method, setting: Setting, records: float | None = None) -> Signal:
    """Of the clients' noise under `record`: in their training, on teachers' votes, or on sums.

    Args:
        method: says which of them.
        setting: the experiment, its noise resolved.
        records: how many a client holds, where that may be looked at; None: by public values alone.
    """
    if (votes := method.voting(setting)) is not None:
        return _of_votes(votes, setting)
    if method.card.has_teachers:
        return _of_training(setting, records)
    [what] = method.card.sums
    return _of_sums(setting, what, records)


def _of_votes(votes: Voting, setting: Setting) -> Signal:
    """Of all teachers that agree, over the noise on their votes, a vote that changes being two."""
    noise, steps = votes.event(setting).noise_multiplier, votes.queries * setting.cohort_size
    told = of_steps(
        noise * math.sqrt(2), records=votes.voters, steps=steps, numbers=_fewest(setting)
    )
    return replace(
        told,
        what="unanimous teachers over the noise on their votes",
        remedy="have more teachers vote on a sample, a smaller model or more clients",
    )


def _of_training(setting: Setting, records: float | None) -> Signal:
    """The best that any client's model allows."""
    experiment = setting.experiment
    event = setting.training
    return of_steps(
        event.noise_multiplier,
        records=in_a_step(experiment.privacy, setting.noise.batch_size)
        if records is None
        else event.sample_rate * records,
        steps=event.steps * experiment.rounds * setting.cohort_size,
        numbers=_fewest(setting),
    )


def _of_sums(setting: Setting, what: Sum, records: float | None) -> Signal:
    """Of the sum with labels, or of gradients: the last layer's numbers.

    There is one for each client, or for all, and in each round where sums are others then.
    """
    model = setting.build(setting.experiment.student.model, purpose="specification")
    features, outputs = sizes(head(model))
    event = setting.summing(what)
    rounds = setting.experiment.rounds if what in EACH_ROUND else 1
    # Under secure aggregation one noise is on the sum of all, which is as many times as long.
    together = setting.cohort_size**2 if setting.securely else setting.cohort_size
    return of_steps(
        event.noise_multiplier,
        records=most_records(setting.experiment.privacy) if records is None else records,
        steps=together * rounds,
        numbers=features * outputs,
    )


def _fewest(setting: Setting) -> int:
    """The fewest numbers that any client's model learns."""
    return min(
        _trainable(
            setting.of_client(i).build(setting.experiment.client_model(i), purpose="specification")
        )
        for i in setting.first_clients
    )


def _trainable(model: nn.Module) -> int:
    """How many numbers DP-SGD adds noise to."""
    return sum(each.numel() for each in model.parameters() if each.requires_grad)
