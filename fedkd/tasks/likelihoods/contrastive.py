"""Identities, by how alike answers of one identity are, and of different ones are not."""

import torch
from torch import Tensor

from fedkd.knowledge import similarity
from fedkd.knowledge.geometry import cosines, unit
from fedkd.tasks.base import Likelihood


def contrastive(tau: float) -> Likelihood:
    """The supervised contrastive likelihood, Khosla et al. 2020, arXiv:2004.11362.

    A record of a batch picks another of the batch, by the softmax of cosines between its answer
    (D,) and theirs over tau. `nll` is that of picking one of its own identity, a mean over these
    (their loss L_out); 0 for a record that is alone of its identity in the batch. So it compares
    records with each other, and knows no list of identities.

    `divergence` is `knowledge.similarity.neighbourhood` at tau times T: whom the teacher would
    pick, against whom the student would. It is blind to a rotation of either side's answers, and so
    is `mix`, see `mean_of_cosines`: models that learned apart have axes that mean nothing to each
    other. `decide` gives an answer's direction, at length 1, since somebody unseen has no number.

    Args:
        tau: > 0, such as 0.1, the temperature.
    """

    def nll(answers: Tensor, targets: Tensor) -> Tensor:
        alone = torch.eye(len(targets), dtype=torch.bool, device=targets.device)
        same = (targets[:, None] == targets) & ~alone
        # The least finite number, since a record that is alone would be NaN otherwise.
        alike = cosines(answers) / tau
        log_p = alike.masked_fill(alone, torch.finfo(alike.dtype).min).log_softmax(dim=1)
        return -torch.where(same, log_p, 0.0).sum(dim=1) / same.sum(dim=1).clamp(min=1)

    def divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        softened = tau * temperature
        return temperature**2 * similarity.neighbourhood(student, teacher, temperature=softened)

    return Likelihood(
        nll=nll,
        mean_nll=lambda answers, targets: nll(answers, targets).mean(),
        divergence=divergence,
        decide=lambda answers: unit(answers, dim=-1),
        couples=True,
        mix=mean_of_cosines,
    )


def mean_of_cosines(answers: Tensor) -> Tensor:
    """(K, N, D) -> (N, D): answers whose cosines are, as near as D axes allow, the K models' mean.

    These are the first D principal components of all models' directions side by side, whose inner
    products are the mean of theirs. Lengths of answers do not count.
    """
    models, records, axes = answers.shape
    beside = unit(answers.double(), dim=-1).transpose(0, 1).flatten(1) / models**0.5
    left, sizes, _ = torch.linalg.svd(beside, full_matrices=False)
    found = answers.new_zeros(records, axes)
    found[:, : len(sizes)] = (left * sizes)[:, :axes].to(answers)
    return found
