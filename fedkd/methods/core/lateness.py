"""Asynchronous rounds: which experiments can have them, and what becomes of a late model."""

import math

from torch import Tensor, nn

from fedkd.errors import ConfigError
from fedkd.exchange.messages import Tensors, group, prefixed
from fedkd.methods.core.setting import Setting


def check(setting: Setting) -> None:
    """Refuse what asynchronous rounds do not go with, where the method's card does not say it.

    Raises:
        ConfigError: with the keys that do not fit.
    """
    experiment = setting.experiment
    clients, privacy = experiment.clients, experiment.privacy
    if (how := clients.asynchronous) is None:
        return
    if how.buffer > setting.clients:
        raise ConfigError(
            f"clients.asynchronous.buffer is {how.buffer}: expected at most the "
            f"{setting.clients} clients, each of which has one answer in a step"
        )
    if clients.participation < 1:
        raise ConfigError(
            f"clients.participation is {clients.participation:g}, and with clients.asynchronous "
            "all clients are at work all the time: leave it out"
        )
    if privacy.unit.startswith("client"):
        raise ConfigError(
            f"privacy.unit = {privacy.unit!r} hides what a client says, and with "
            "clients.asynchronous whose answers are in a step follows from when they came, which "
            "no noise hides: leave clients.asynchronous out, or take unit = 'record'"
        )
    if setting.stages is not None:
        raise ConfigError(
            "data.stream has stages that all clients are in together, and with "
            "clients.asynchronous a late answer would be of another stage: leave one of them out"
        )


def damping(staleness: int) -> float:
    """What a late update counts, 1 / sqrt(1 + staleness): FedBuff, arXiv:2106.06639, section 3."""
    return 1 / math.sqrt(1 + staleness)


def moved_on(
    model: nn.Module, upload: Tensors, start: Tensors, newest: Tensors, *, staleness: int
) -> dict[str, Tensor]:
    """An upload with its model as if it had started from the newest broadcast.

    A parameter becomes newest + damping * (upload - start), so that a mean of such models is the
    newest and FedBuff's mean of damped updates, by server learning rate 1. Running statistics lie
    between the newest and the upload's own, since a variance less than 0 would be none.

    Args:
        model: tells parameters from statistics.
        upload: with a model under `model/`; all else of it stays.
        start: the broadcast that the client started from.
        newest: the latest broadcast, of the same names.
        staleness: steps of the server between the two; 0 leaves the upload as it is.
    """
    if staleness == 0:
        return dict(upload)
    share, learned = damping(staleness), {name for name, _ in model.named_parameters()}
    before, now = group("model", start), group("model", newest)
    moved = {}
    for name, own in group("model", upload).items():
        if not own.is_floating_point():  # BatchNorm's counters
            continue
        origin = before[name] if name in learned else now[name]
        there = now[name].double() + share * (own.double() - origin.double())
        moved[name] = there.to(own.dtype)
    return {**upload, **prefixed("model", moved)}
