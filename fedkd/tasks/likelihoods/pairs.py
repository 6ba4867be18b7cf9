"""Pairs of a question and its answer: alike to each other, and unlike those of other pairs."""

import torch
from torch import Tensor

from fedkd.knowledge import label
from fedkd.knowledge.geometry import unit
from fedkd.tasks.base import Likelihood
from fedkd.tasks.likelihoods.contrastive import mean_of_cosines


def cosines_of(pairs: Tensor) -> Tensor:
    """Vectors (N, 2, D) of N pairs -> (N, N): of each first one, by row, with each second one."""
    first, second = unit(pairs, dim=-1).unbind(dim=1)
    return first @ second.T


def pairs(tau: float) -> Likelihood:
    """The likelihood by which a question picks its answer among those of its batch.

    It picks by the softmax of cosines over tau (Henderson et al. 2017, arXiv:1705.00652, with
    cosines). `nll` is that of picking an answer of its own identity, a mean over these, since equal
    answers are one identity. `divergence` is T^2 KL of whom the teacher would pick, against whom
    the student would, at tau times T. It and `mix` are blind to a rotation of a model's vectors.
    `decide` gives directions, at length 1.

    Args:
        tau: > 0, such as 0.05, the temperature.
    """

    def nll(answers: Tensor, targets: Tensor) -> Tensor:
        same = targets[:, None] == targets
        log_p = (cosines_of(answers) / tau).log_softmax(dim=1)
        return -torch.where(same, log_p, 0.0).sum(dim=1) / same.sum(dim=1)

    def divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        ours, theirs = (cosines_of(each) / tau for each in (student, teacher))
        return label.kd(ours, theirs, temperature=temperature)

    def mix(answers: Tensor) -> Tensor:
        mixed = mean_of_cosines(answers.flatten(1, 2))
        return mixed.reshape(answers.shape[1:])

    return Likelihood(
        nll=nll,
        mean_nll=lambda answers, targets: nll(answers, targets).mean(),
        divergence=divergence,
        decide=lambda answers: unit(answers, dim=-1),
        couples=True,
        mix=mix,
    )
