"""The loss by which a student learns from answers, by the name of its form of knowledge."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError
from torch import Tensor

from fedkd.config import Frozen
from fedkd.errors import ConfigError
from fedkd.learning import forms
from fedkd.learning.offline import Loss
from fedkd.tasks import Likelihood, Task
from fedkd.tasks.likelihoods.categorical import CATEGORICAL

LABEL_FORMS = tuple(name for name, form in forms.BUILT_IN.items() if form.looks_at == "logits")
"""Forms of knowledge that look at answers alone."""


def _known(name: str) -> str:
    if name not in LABEL_FORMS:
        *most, last = map(repr, LABEL_FORMS)
        raise PydanticCustomError("form", f"{', '.join(most)} or {last}")
    return name


LabelLoss = Annotated[str, AfterValidator(_known)]
"""The name of one of `LABEL_FORMS`."""


def suited(params: Frozen, given: Mapping[str, Any], task: Task) -> Frozen:
    """Parameters in which a `loss` that nobody named is one that the task has.

    Those of classes are the defaults; where there are none, the task's own divergence.
    """
    default = "loss" not in given and getattr(params, "loss", None) in LABEL_FORMS
    if not default or "categorical" in task.offers:
        return params
    return params.model_copy(update={"loss": "divergence"})


def check_loss(name: str, task: Task) -> None:
    """Refuse a form of knowledge that the task's answers do not have, or not by its defaults.

    Raises:
        ConfigError: names the forms that fit, or what the parameter should be.
    """
    form = forms.find(name)
    if not task.offers.issuperset(form.asks):
        raise ConfigError(
            f"method.loss is {name!r}, which compares {form.compares}, and task {task.name!r} has "
            f"none: choose one of {', '.join(forms.fitting(task, LABEL_FORMS))}"
        )
    form.fits(form.Params(), task, f"method.loss ({name})")


def label_loss(name: str, *, temperature: float, likelihood: Likelihood = CATEGORICAL) -> Loss:
    """A student's answers (N, *A) and the teachers' (N, *A) to a scalar or values per sample (N,).

    Its own parameters are the form's defaults, and its weight is 1: no cross-entropy stands beside
    it. `mae` has no temperature. A proxy set has no labels, so the target of `dkd` is the one that
    the teachers name.
    """
    form = forms.find(name)
    tempered = "temperature" in form.Params.model_fields
    params = form.Params.model_validate({"temperature": temperature} if tempered else {})
    compare = form.compared(params, (), (), torch.Generator(), likelihood).loss
    if compare is None:
        raise ValueError(f"Expected a form with a loss of its own, got {name!r}.")

    def loss(student: Tensor, teachers: Tensor) -> Tensor:
        return compare([student], [teachers], likelihood.decide(teachers))

    return loss
