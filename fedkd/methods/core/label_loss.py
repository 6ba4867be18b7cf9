"""The loss by which a student learns from answers, by the name of its form of knowledge."""

from typing import Literal

import torch
from torch import Tensor

from fedkd.learning import forms
from fedkd.learning.offline import Loss

LabelLoss = Literal["kd", "dkd", "dist", "jsd", "soft-labels", "mae"]
"""Forms of knowledge that look at answers alone."""


def label_loss(name: LabelLoss, *, temperature: float) -> Loss:
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
