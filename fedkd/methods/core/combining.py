"""How what clients sent comes together: by the method's own mean, or by a rule of `[robust]`."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from fedkd.config import Robust
from fedkd.errors import ConfigError
from fedkd.exchange.aggregation import answers as rules
from fedkd.exchange.aggregation import average_models, calls
from fedkd.exchange.aggregation import models as rules_of_models
from fedkd.exchange.aggregation.agreement import FEWEST, quieted
from fedkd.exchange.messages import Tensors
from fedkd.methods.core.setting import Setting
from fedkd.tasks.bounded import Bounded

Combined = Literal["answers", "models"]
"""What a method combines in a way that a rule can take the place of."""

_LEAST = 1e-300


def rule_for(robust: Robust | None, what: Combined) -> str | None:
    """The rule for answers or for models; None where the method's own way is kept."""
    rule = "mean" if robust is None else robust.answers if what == "answers" else robust.models
    return None if rule == "mean" else rule


def together(
    robust: Robust, answers: Tensor, form: Bounded | None, past: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """What clients say together, by the rule for answers.

    Args:
        robust: with a rule for answers.
        answers: (K, N, *A).
        form: in which they are compared; None: as they are.
        past: (K,), what counts of earlier rounds' scores, for `expguard`.

    Returns:
        The answer (N, *A); how far each client's were from it, over the median client's (K,); and
        the sum of scores (K,), None of rules without.
    """
    given = answers.float() if form is None else form.into(answers)
    liars, scores = robust.liars(len(given)), None
    match robust.answers:
        case "median":
            found = rules.median(given)
        case "trimmed-mean":
            found = rules.trimmed_mean(given, liars)
        case "geometric-median":
            found = rules.geometric_median(given)
        case "cronus":
            found = rules.cronus(given, liars)
        case "expguard":
            found, scores = rules.expguard(given, past)
        case "mean":
            raise ValueError("expected a rule for answers; `rule_for` says whether there is one")
    with torch.no_grad():
        apart = (given - found).reshape(*given.shape[:2], -1).norm(dim=2).double().mean(dim=1)
    return found if form is None else form.back(found, answers), relative(apart), scores


def averaged(
    robust: Robust | None, models: Sequence[Tensors], counts: Sequence[float]
) -> tuple[dict[str, Tensor], Tensor | None]:
    """What equal models come to: their mean by counts, or what the rule for models makes of them.

    A rule counts models alike. Of fewer than three models it is their mean, since of two that
    differ nobody can say whose is wrong; of fewer than a rule needs for as many liars, those that
    it can stand.

    Returns:
        The model, and how far each one was from it, over the median one (K,); None without a rule.
    """
    if robust is None or rule_for(robust, "models") is None:
        return average_models(models, counts), None
    clients = len(models)
    liars, found = robust.liars(clients), average_models(models, [1.0] * clients)
    if clients >= FEWEST:
        mixed = rules_of_models.mixed(models, liars) if robust.neighbours else models
        match robust.models:
            case "median":
                found = rules_of_models.median(mixed)
            case "trimmed-mean":
                found = rules_of_models.trimmed_mean(mixed, liars)
            case "geometric-median":
                found = rules_of_models.geometric_median(mixed)
            case "multi-krum":
                found = rules_of_models.multi_krum(mixed, min(liars, (clients - 3) // 2))
            case "bulyan":
                found = rules_of_models.bulyan(mixed, min(liars, (clients - 3) // 4))
            case "centred-clipping":
                found = rules_of_models.centred_clipping(mixed)
    return found, relative(rules_of_models.distances(models, found))


def hearing(
    robust: Robust | None, plain: Callable[[Tensor], Tensor], form: Bounded | None
) -> Callable[[Tensor], Tensor]:
    """How an ensemble's answer (N, *A) comes of its teachers' (K, N, *A), without a memory."""
    if robust is None or rule_for(robust, "answers") is None:
        return plain
    return lambda answers: together(robust, answers, form)[0]


def heard(
    robust: Robust | None, setting: Setting, answers: Tensor, form: Bounded | None
) -> tuple[Tensor, list[float]]:
    """Answers (K, N, *A) as a mean may take them: under screening nobody is far louder than others.

    Of classes nobody calls one far oftener, either.

    Returns:
        The answers, and the share of inputs on which each client is not heard for that, K of them.
    """
    everywhere = [0.0] * len(answers)
    if robust is None or not robust.screen:
        return answers, everywhere
    answers = quieted(answers)
    if form is None or "classes" not in setting.task.offers:
        return answers, everywhere
    found, unheard = calls.no_oftener(answers, form.into(answers))
    return found, unheard.tolist()


def check(setting: Setting, combines: Sequence[Combined], fit: Callable[[Combined], str]) -> None:
    """Refuse a rule that would not do what it says.

    Args:
        setting: of the experiment.
        combines: what the method's card says that rules can combine.
        fit: the methods whose answers, or whose models, rules can combine.

    Raises:
        ConfigError: the method combines no such thing, or there are too few clients.
    """
    robust, how = setting.experiment.robust, setting.experiment.clients.asynchronous
    if robust is None:
        return
    asked = setting.cohort_size if how is None else how.buffer
    for what in ("answers", "models"):
        rule = rule_for(robust, what)
        if rule is None:
            continue
        if what not in combines:
            raise ConfigError(
                f"robust.{what} is {rule!r}, and method {setting.experiment.method.name!r} "
                f"combines no {what} that a rule could take: leave it out, or choose one of "
                f"{fit(what)}"
            )
        if asked < FEWEST:
            raise ConfigError(
                f"robust.{what} is {rule!r}, and a round asks {asked} clients, of "
                "which nobody can say who lies: ask 3 or more (clients.count, "
                "clients.participation, clients.asynchronous.buffer)"
            )
        _check_least(robust, rule, asked)
    if robust.screen and setting.cohort_size < FEWEST:
        raise ConfigError(
            f"robust.screen compares clients with each other, and a round asks "
            f"{setting.cohort_size}, of which nobody can say who lies: ask 3 or more "
            "(clients.count, clients.participation), or set it to false"
        )
    if "answers" in combines and rule_for(robust, "answers") is not None:
        _check_answers(robust, setting)


def _check_least(robust: Robust, rule: str, clients: int) -> None:
    """Refuse a rule that cannot stand as many liars as the share says, of so few clients."""
    by_liar = {"multi-krum": 2, "bulyan": 4}.get(rule)
    liars = robust.liars(clients)
    if by_liar is not None and clients < (least := by_liar * liars + 3):
        most = (clients - 3) // by_liar
        share = math.floor(100 * most / clients) / 100  # rounded up it would be one liar more
        remedy = f"set robust.hostile to at most {share:g}, or " if most else ""
        raise ConfigError(
            f"robust.models = {rule!r} needs {least} clients to stand {liars} that lie "
            f"(robust.hostile = {robust.hostile:g}), and a round asks {clients}: {remedy}choose "
            "another rule, such as 'median'"
        )


def _check_answers(robust: Robust, setting: Setting) -> None:
    """Refuse a rule on answers that cannot be compared number by number, or are not bounded."""
    task = setting.task
    if task.likelihood.mix is not None:
        raise ConfigError(
            f"robust.answers = {robust.answers!r} compares answers number by number, and those of "
            f"task {task.name!r} come together in another way: leave it out, or of a detection set "
            "task.together to 'mean'"
        )
    if robust.answers == "expguard" and task.likelihood.bounded is None:
        raise ConfigError(
            f"robust.answers = 'expguard' weighs a client alike on all inputs, and an answer of "
            f"task {task.name!r} may be of any size on one of them: choose another rule, such as "
            "'geometric-median'"
        )


def relative(apart: Tensor) -> Tensor:
    """Distances or lengths (K,) over the median one."""
    return apart / rules.median(apart).clamp(min=_LEAST)
