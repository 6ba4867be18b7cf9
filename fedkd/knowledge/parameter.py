"""Knowledge in parameters: the mean teacher, Tarvainen & Valpola 2017, arXiv:1703.01780."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from fedkd.knowledge.checks import has_shape
from fedkd.knowledge.places import counted


def ema(
    average: Mapping[str, Tensor], current: Mapping[str, Tensor], *, decay: float
) -> dict[str, Tensor]:
    """Mix decay * average + (1 - decay) * current, for each weight by name; both stay as they are.

    What is not a floating-point number (BatchNorm's count of batches) is taken from `current`.

    Args:
        average: the teacher's weights, as of `state_dict()`.
        current: the student's weights.
        decay: a in [0, 1]; the mean goes back about 1 / (1 - a) steps.

    Returns:
        The teacher's new weights, detached, in its order and precision.

    Raises:
        ValueError: the decay is outside [0, 1], or names or shapes differ.
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"expected decay={decay} in [0, 1]")
    if average.keys() != current.keys():
        names = ", ".join(sorted(average.keys() ^ current.keys()))
        raise ValueError(f"weights {names}: expected in both models, found in one")
    for name, weight in average.items():
        has_shape(tuple(weight.shape), **{name: current[name]})
    return {name: _mixed(old, current[name], decay) for name, old in average.items()}


@torch.no_grad()
def _mixed(old: Tensor, new: Tensor, decay: float) -> Tensor:
    new = new.to(old)
    if not old.is_floating_point():
        return new.clone()
    return decay * old + (1 - decay) * new


def early_decay(step: int, *, decay: float) -> float:
    """min(decay, 1 - 1 / (step + 1)): at first a plain mean, as a long memory would keep the start.

    With steps from 0 the mean is of all steps and the random start is forgotten; the authors'
    PyTorch code counts from 1, so that the start weighs as much as one step.
    """
    if step < 0:
        raise ValueError(f"expected step={step} >= 0")
    return min(decay, 1 - 1 / (step + 1))


def consistency(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of probabilities over classes, per place.

    Args:
        student: logits (..., C).
        teacher: logits (..., C), of the averaged model on another view of the same input.

    Returns:
        (...) in [0, 2 / C]; blind to a shift of either side's logits; 0 where distributions agree.

    Raises:
        ValueError: the shapes do not fit.
    """
    student, teacher = counted(None, student=student, teacher=teacher)
    return (F.softmax(student, dim=-1) - F.softmax(teacher, dim=-1)).square().mean(dim=-1)
