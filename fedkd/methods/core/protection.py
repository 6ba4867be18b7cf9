"""What can be protected: every refusal that comes before noise is drawn or anything is paid."""

import math

import torch

from fedkd.errors import BudgetError, ConfigError
from fedkd.exchange.masking.fixed_point import RESOLUTION, SHORT_RANGE, most
from fedkd.learning.dp.checks import (
    blaming,
    check_features,
    check_model,
    check_task,
    check_training,
)
from fedkd.methods import BUILT_IN, find
from fedkd.methods.core import accounting, sums
from fedkd.methods.core.base import Method
from fedkd.methods.core.setting import Setting
from fedkd.privacy import accountant
from fedkd.privacy.mechanisms import most_laplace
from fedkd.privacy.signal import hopeless
from fedkd.privacy.size import check_ceiling, check_delta


def resolve(method: Method, setting: Setting) -> Setting:
    """The setting with the noise that its budget needs, once it is sure that the budget holds.

    Raises:
        ConfigError: the method or a model cannot be protected, or the plan is hopeless.
        BudgetError: the plan costs more than the budget.
    """
    privacy = setting.experiment.privacy
    allowed = accounting.budget(privacy)
    if allowed is None:
        return setting
    check(method, setting)
    if privacy.noise_multiplier is None:
        setting = accounting.with_noise(setting, accounting.noise_needed(method, setting, allowed))
    elif (
        cost := accountant.epsilon(accounting.plan(method, setting), allowed.delta)
    ) > allowed.epsilon:
        raise BudgetError(
            f"privacy.noise_multiplier = {privacy.noise_multiplier:g} makes the plan cost epsilon "
            f"{cost:.4g}: expected at most {allowed}; leave it out to have it computed, or plan "
            "fewer rounds or epochs"
        )
    check_fixed_point(method, setting)
    if (told := accounting.signal(method, setting)).hopeless:
        raise hopeless(told, accounting.least_epsilon(method, setting, told, allowed), allowed)
    return setting


def check(method: Method, setting: Setting) -> None:
    """Refuse what no noise can protect: by the configuration alone, so that all parties agree.

    Raises:
        ConfigError: the method or a model cannot be protected, or delta is too large.
    """
    privacy = setting.experiment.privacy
    name, voting = setting.experiment.method.name, method.voting(setting) is not None
    if privacy.clipping != "flat" and (privacy.unit != "record" or method.card.sums or voting):
        nothing = f"under privacy.unit = {privacy.unit!r} no gradient is clipped"
        if voting:
            nothing = f"of method {name!r} no gradient is clipped"
        elif method.card.sums:
            nothing = f"method {name!r} trains nothing"
        raise ConfigError(f"privacy.clipping is {privacy.clipping!r}, and {nothing}: leave it out")
    if privacy.unit == "record":
        check_task(setting.task)
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


def check_secure(setting: Setting) -> None:
    """Refuse secure aggregation whose sum would be of one client.

    Raises:
        ConfigError: one is asked in a round.
    """
    if setting.securely and setting.cohort_size < 2:
        raise ConfigError(
            "privacy.secure_aggregation adds up the answers of at least two clients, and one is "
            "asked in a round: ask more clients, or leave it out"
        )


def check_fixed_point(method: Method, setting: Setting) -> None:
    """Refuse a share of the noise that is too fine or too large for secure aggregation's numbers.

    Each client rounds its own part, so that their sum is that of rounded noises; with 1,024 steps
    to a standard deviation it is the rounded sum's to far below delta (as of discrete noises,
    Kairouz et al. 2021, arXiv:2102.06387).
    """
    if not (setting.securely and method.card.sums):
        return
    clip, noise = setting.experiment.privacy.clip, setting.summing(method.card.sums[0])
    share = noise.noise_multiplier * setting.noise_share
    # The least that any entry of `knowledge.moments.protected` is given; a gradient's get more.
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
    if any(each.dtype == torch.int16 for each in method.expects(setting, 0).values()):
        _check_short(setting)


def _check_short(setting: Setting) -> None:
    """Refuse so many records that sums in 16 bits would leave their range, and rounds be lost.

    As if all records of one class pulled one number half as far as the clip lets them, and there
    were as many of each class. On Fashion-MNIST's `contrast-filters` they pull 0.46 to 0.58 as far
    in the first step, and less in later ones.
    """
    records = float(str(setting.experiment.method.parameters["records"]))
    pulled = records * setting.experiment.privacy.clip / (2 * setting.classes)
    room = SHORT_RANGE * sums.short_step(setting)
    if pulled > room:
        raise ConfigError(
            f"method.records is {records:,.0f}, and a number of a sum could be {pulled:,.0f}: 16 "
            f"bits have room for {room:,.0f} beside this noise; take method.precision = 'float32'"
        )


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
        fit = ", ".join(repr(each) for each in BUILT_IN if find(each).card.client_units)
        raise ConfigError(
            f"method {name!r} cannot run under {unit!r}: its server part does not combine "
            f"probabilities, which have a bounded norm; use {fit}, or unit = 'record'"
        )
    if unit == "record":
        _check_models(method, setting)


def _check_models(method: Method, setting: Setting) -> None:
    experiment = setting.experiment
    if method.card.sums:
        spec, shape = experiment.student.model, setting.shape
        with blaming("student.model", spec):
            features = setting.build(spec, purpose="specification")
            check_features(features, shape, like=setting.examples)
    if not method.card.has_teachers or method.voting(setting) is not None:
        return
    check_training(experiment.clients.training, "clients.training")
    for client in setting.first_clients:
        own, spec = setting.of_client(client), experiment.client_model(client)
        with blaming(f"clients.models[{client % len(experiment.clients.models)}]", spec):
            model = own.build(spec, purpose="specification")
            check_model(model, own.shape, like=own.examples)
