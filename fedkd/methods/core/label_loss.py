"""The loss by which a student learns from answers, by the name of its form of knowledge."""

from typing import Annotated

import torch
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError
from torch import Tensor

from fedkd.learning import forms
from fedkd.learning.offline import Loss

LABEL_FORMS = tuple(name for name, form in forms.BUILT_IN.items() if form.looks_at == "logits")
"""Forms of knowledge that look at answers alone."""


def _known(name: str) -> str:
    if name not in LABEL_FORMS:
        *most, last = map(repr, LABEL_FORMS)
        raise PydanticCustomError("form", f"{', '.join(most)} or {last}")
    return name


LabelLoss = Annotated[str, AfterValidator(_known)]
"""The name of one of `LABEL_FORMS`."""


def label_loss(name: str, *, temperature: float) -> Loss:
    """Student logits (N, C) and the teachers' (N, C) to a scalar or a value per sample (N,).

    Its own parameters are the form's defaults, and its weight is 1: no cross-entropy stands beside
    it. `mae` has no temperature. A proxy set has no labels, so the target class of `dkd` is the one
    that the teachers name.
    """
    form = forms.find(name)
    tempered = "temperature" in form.Params.model_fields
    params = form.Params.model_validate({"temperature": temperature} if tempered else {})
    compare = form.build(params, (), (), torch.Generator()).loss
    if compare is None:
        raise ValueError(f"Expected a form with a loss of its own, got {name!r}.")

    def loss(student: Tensor, teachers: Tensor) -> Tensor:
        return compare([student], [teachers], teachers.argmax(dim=1))

    return loss
