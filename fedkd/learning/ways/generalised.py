"""Privileged distillation: a teacher sees of the training data what the student never will.

Generalised distillation, Lopez-Paz et al. 2016, arXiv:1511.03643. What a teacher sees may be other
columns, finer pixels or another modality, of the same samples; values of it may be missing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedkd.config import Optimisation
from fedkd.data.types import Samples
from fedkd.knowledge.checks import has_shape, positive
from fedkd.knowledge.label import soft_cross_entropy
from fedkd.learning import evaluate
from fedkd.learning.loop import OnEpoch, fit
from fedkd.models import call
from fedkd.rows import Rows
from fedkd.tasks import Likelihood


@dataclass(frozen=True, eq=False)
class SightedTeacher:
    """A teacher beside what it sees of the student's N samples."""

    teacher: nn.Module
    """Stays as it is."""
    x: Rows
    """N of its own inputs, no value missing; a teacher without privilege sees the student's x."""
    seen: Tensor
    """bool (N,): of which samples it sees enough to have a say; see `seen_rows`."""


def seen_rows(x: Tensor) -> Tensor:
    """Inputs (N, ...), NaN where a value is missing -> bool (N,): is any value of the row there?"""
    return ~x.flatten(1).isnan().all(dim=1)


def means(x: Tensor) -> Tensor:
    """Inputs (N, ...), NaN where missing -> (...): the mean of the known; 0 where none is known."""
    return x.nanmean(dim=0).nan_to_num(nan=0.0)


def filled(x: Tensor, fill: Tensor) -> Tensor:
    """Fill gaps, and say beside each value whether it was one.

    That a test was not made tells something too, so a teacher is shown it.

    Args:
        x: (N, D, ...), NaN where a value is missing.
        fill: (D, ...), such as `means` of the training inputs.

    Returns:
        (N, 2 D, ...): the values, then 1 where a value was missing and else 0.

    Raises:
        ValueError: the shapes do not match, or `fill` has gaps itself.
    """
    has_shape(tuple(x.shape[1:]), fill=fill)
    if fill.isnan().any():
        raise ValueError("fill has values that are NaN: expected numbers, such as means(x)")
    missing = x.isnan()
    return torch.cat([torch.where(missing, fill, x), missing.to(x)], dim=1)


def teacher_targets(
    witnesses: Sequence[SightedTeacher], *, temperature: float
) -> tuple[Tensor, Tensor]:
    """What the teachers say of each sample, softened.

    Args:
        witnesses: at least one; all of the same N samples and C classes.
        temperature: T > 0; logits are divided by it.

    Returns:
        The mean probabilities (N, C) over the teachers that see a sample, 0 where none does; and
        bool (N,), whether one does.

    Raises:
        ValueError: there is no teacher, lengths differ, or the temperature is not positive.
    """
    positive(temperature=temperature)
    lengths = {len(part) for each in witnesses for part in (each.x, each.seen)}
    if len(lengths) != 1:
        raise ValueError(
            f"{len(witnesses)} teachers that see {sorted(lengths)} samples: expected 1 or more, "
            "and the same samples for all"
        )
    seen = torch.stack([each.seen for each in witnesses])
    logits = [evaluate.answers(each.teacher, each.x) for each in witnesses]
    said = torch.stack([torch.softmax(each / temperature, dim=1) for each in logits])
    said = torch.where(seen[:, :, None], said, 0.0).sum(dim=0)
    return said / seen.sum(dim=0).clamp(min=1)[:, None], seen.any(dim=0)


def generalised_loss(
    student: Tensor,
    y: Tensor,
    said: Tensor,
    seen: Tensor,
    *,
    imitation: float,
    temperature: float,
) -> Tensor:
    """(1 - l) CE(y, student) + l T^2 CE(said, student), per sample; CE alone where nobody saw it.

    The student's own logits are not softened, and T^2 is that of the authors' code.

    Args:
        student: logits (N, C).
        y: labels (N,).
        said: probabilities (N, C), softened by T; see `teacher_targets`.
        seen: bool (N,).
        imitation: l in [0, 1].
        temperature: T > 0.

    Returns:
        (N,), in nats.

    Raises:
        ValueError: the shapes differ, or a number is out of range.
    """
    positive(temperature=temperature)
    if not 0 <= imitation <= 1:
        raise ValueError(f"expected imitation={imitation} in [0, 1]")
    has_shape((len(student),), y=y, seen=seen)
    taught = F.cross_entropy(student, y, reduction="none")
    told = temperature**2 * soft_cross_entropy(student, said)
    return torch.where(seen, (1 - imitation) * taught + imitation * told, taught)


def teacher_answers(
    witnesses: Sequence[SightedTeacher], likelihood: Likelihood
) -> tuple[Tensor, Tensor]:
    """What the teachers answer to each sample, of a task that has not one class a record.

    Args:
        witnesses: at least one; all of the same N samples.
        likelihood: says how answers come together; the mean of those that see a sample, unless it
            does.

    Returns:
        Their answers together, (N, *A), 0 where nobody sees a sample; and bool (N,), whether one
        does.
    """
    seen = torch.stack([each.seen for each in witnesses])
    said = torch.stack([evaluate.answers(each.teacher, each.x) for each in witnesses])
    wide = seen.reshape(*seen.shape, *[1] * (said.dim() - 2))
    said = torch.where(wide, said, 0.0)
    if likelihood.mix is not None:
        return likelihood.mix(said), seen.any(dim=0)
    return said.sum(dim=0) / wide.sum(dim=0).clamp(min=1), seen.any(dim=0)


def imitation_loss(
    student: Tensor,
    y: Tensor,
    said: Tensor,
    seen: Tensor,
    *,
    imitation: float,
    temperature: float,
    likelihood: Likelihood,
) -> Tensor:
    """(1 - l) NLL + l times the divergence, per sample; the NLL alone where nobody saw it.

    Args:
        student: answers (N, *A).
        y: targets (N, *T).
        said: answers (N, *A); see `teacher_answers`.
        seen: bool (N,).
        imitation: l in [0, 1].
        temperature: T > 0, of the divergence.
        likelihood: of targets by answers.

    Returns:
        (N,).
    """
    taught = likelihood.nll(student, y)
    (where,) = seen.nonzero(as_tuple=True)
    if not len(where):
        return taught
    told = likelihood.divergence(student[where], said[where], temperature=temperature)
    told = torch.zeros_like(taught).index_put((where,), told)
    return torch.where(seen, (1 - imitation) * taught + imitation * told, taught)


def distil(
    student: nn.Module,
    samples: Samples,
    witnesses: Sequence[SightedTeacher],
    optimisation: Optimisation,
    generator: torch.Generator,
    *,
    imitation: float,
    temperature: float,
    likelihood: Likelihood | None = None,
    optimiser: torch.optim.Optimizer | None = None,
    on_epoch: OnEpoch | None = None,
) -> list[float]:
    """Fit the student to labels and to what the teachers say; the rest is as in `loop.fit`.

    Args:
        student: trained in place on the samples' own inputs.
        samples: N inputs as the student sees them, and labels.
        witnesses: see `teacher_targets`.
        optimisation: see `loop.fit`.
        generator: see `loop.fit`.
        imitation: see `generalised_loss`.
        temperature: see `generalised_loss`.
        likelihood: of a task that has not one class a record, by `imitation_loss`; None: one class.
        optimiser: see `loop.fit`.
        on_epoch: see `loop.fit`.

    Returns:
        The mean loss of each epoch.

    Raises:
        ValueError: shapes or numbers do not fit, see `teacher_targets` and `generalised_loss`.
        FederationError: training diverged.
    """
    compare: Callable[..., Tensor] = generalised_loss
    if likelihood is None:
        said, seen = teacher_targets(witnesses, temperature=temperature)
    else:
        said, seen = teacher_answers(witnesses, likelihood)
        compare = partial(imitation_loss, likelihood=likelihood)

    def loss(model: nn.Module, x: Tensor, y: Tensor, said: Tensor, seen: Tensor) -> Tensor:
        return compare(
            call.answer(model, x), y, said, seen, imitation=imitation, temperature=temperature
        )

    rows = (samples.x, samples.y, said, seen)
    return fit(student, rows, loss, optimisation, generator, optimiser=optimiser, on_epoch=on_epoch)
