"""How far what a method is to learn can stand out of the noise of its plan."""

import math

from torch import nn

from fedkd.methods.core.base import Method
from fedkd.methods.core.setting import EACH_ROUND, Setting, Sum
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
        asked / noise, _LEAST_UNANIMITY, "a unanimous answer of all clients over the noise on it"
    )


def of_records(method: Method, setting: Setting, records: float | None = None) -> Signal:
    """Of the clients' noise under `record`: in their training, or on their sums.

    Args:
        method: says which of the two.
        setting: the experiment, its noise resolved.
        records: how many a client holds, where that may be looked at; None: by public values alone.
    """
    if method.card.has_teachers:
        return _of_training(setting, records)
    [what] = method.card.sums
    return _of_sums(setting, what, records)


def _of_training(setting: Setting, records: float | None) -> Signal:
    """The best that any client's model allows."""
    experiment = setting.experiment
    built = (
        setting.of_client(i).build(experiment.client_model(i), purpose="specification")
        for i in setting.first_clients
    )
    event = setting.training
    return of_steps(
        event.noise_multiplier,
        records=in_a_step(experiment.privacy, setting.noise.batch_size)
        if records is None
        else event.sample_rate * records,
        steps=event.steps * experiment.rounds * setting.cohort_size,
        numbers=min(map(_trainable, built)),
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


def _trainable(model: nn.Module) -> int:
    """How many numbers DP-SGD adds noise to."""
    return sum(each.numel() for each in model.parameters() if each.requires_grad)
