"""Learning from a teacher that is finished: from its answers, or from whatever it shows."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fedkd import devices
from fedkd.config import Optimisation
from fedkd.data.types import Samples
from fedkd.learning import optim
from fedkd.learning.forms.base import First
from fedkd.learning.forms.terms import Layers, Term, Terms
from fedkd.learning.loop import OnEpoch, fit
from fedkd.models import call
from fedkd.models.layers import LOGITS, forward_with
from fedkd.rows import Rows, one
from fedkd.tasks import Likelihood
from fedkd.tasks.likelihoods.categorical import CATEGORICAL

Loss = Callable[[Tensor, Tensor], Tensor]
"""A student's answers (N, *A) and targets, row by row, to a scalar or values that are averaged."""

_MEMORY = 2**30  # bytes of a teacher's answers that are kept
_CHUNK = 256


def distil(
    student: nn.Module,
    x: Rows,
    targets: Tensor,
    loss: Loss,
    optimisation: Optimisation,
    generator: torch.Generator,
    *,
    optimiser: torch.optim.Optimizer | None = None,
    threads: int | None = None,
    on_epoch: OnEpoch | None = None,
) -> list[float]:
    """Fit the student's answers on `x` to `targets`, row by row; the rest is as in `loop.fit`.

    Args:
        student: trained in place.
        x: N inputs.
        targets: (N, *A): logits, probabilities or numbers, whatever `loss` compares answers with.
        loss: such as `knowledge.label.mae`.
        optimisation: see `loop.fit`.
        generator: see `loop.fit`.
        optimiser: see `loop.fit`.
        threads: see `loop.fit`.
        on_epoch: see `loop.fit`.

    Returns:
        The mean loss of each epoch.

    Raises:
        ValueError: inputs and targets have no rows, or not equally many.
        FederationError: training diverged.
    """
    return fit(
        student,
        (x, targets),
        lambda model, inputs, answers: loss(call.answer(model, inputs), answers),
        optimisation,
        generator,
        optimiser=optimiser,
        threads=threads,
        on_epoch=on_epoch,
    )


def teach(
    student: nn.Module,
    teacher: nn.Module,
    terms: Terms,
    samples: Samples,
    optimisation: Optimisation,
    generator: torch.Generator,
    *,
    labels: float = 1.0,
    likelihood: Likelihood = CATEGORICAL,
    shown: Rows | None = None,
    on_epoch: OnEpoch | None = None,
) -> list[float]:
    """Minimise `labels` * the negative log-likelihood + `terms`; the teacher stays as it is.

    Where inputs are changed (`optimisation.augment`), the teacher is asked about what the student
    sees (Beyer et al. 2022, arXiv:2106.05237).

    Args:
        student: trained in place.
        teacher: in evaluation mode, on the student's device.
        terms: what is passed on; what is learned with them is trained too.
        samples: inputs and targets.
        optimisation: see `loop.fit`.
        generator: see `loop.fit`.
        labels: the weight of the negative log-likelihood, at least 0.
        likelihood: of targets by answers; cross-entropy of classes unless given.
        shown: what the teacher sees of the samples, where that is not what the student sees; then
            inputs are not changed.
        on_epoch: see `loop.fit`.

    Returns:
        The mean loss of each epoch.

    Raises:
        FederationError: training diverged.
    """
    x = samples.x if shown is None else shown
    ask = _of_what_is_seen(teacher, x, terms.teacher, optimisation)
    for term in terms.all:
        if (first := term.compared.first) is not None:
            _before(term, first, student, ask, samples.x, optimisation, generator)

    def loss(model: nn.Module, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        seen = forward_with(model, x, terms.student)
        return labels * likelihood.mean_nll(seen[LOGITS], y) + terms(seen, ask(x, rows), y)

    learned = [*student.parameters(), *terms.learned.parameters()]
    return fit(
        student,
        (samples.x, samples.y, torch.arange(len(samples))),
        loss,
        optimisation,
        generator,
        optimiser=optim.build(learned, optimisation),
        moved=likelihood.moved,
        on_epoch=terms.following(on_epoch),
    )


def asking(teacher: nn.Module, x: Rows, layers: Sequence[str]) -> Callable[[Tensor], Layers]:
    """A function from numbers of rows (N,) to what the teacher shows of them, where it is.

    Without augmentation a teacher says the same in every epoch, so all is computed once where it
    takes at most a gigabyte; else for each batch anew.

    Args:
        teacher: in evaluation mode.
        x: all inputs.
        layers: see `models.layers.forward_with`.
    """

    @torch.no_grad()
    def ask(rows: Tensor) -> dict[str, Tensor]:
        return forward_with(teacher, one(x[rows.cpu()]), layers)

    size = sum(each.nbytes for each in ask(torch.arange(min(1, len(x)))).values()) * len(x)
    if size > _MEMORY:
        return ask
    parts = [ask(rows) for rows in torch.split(torch.arange(len(x)), _CHUNK)]
    told = {name: _joined([part[name] for part in parts]) for name in parts[0]}
    device = devices.of(teacher)
    return lambda rows: {name: each[rows.to(device)] for name, each in told.items()}


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Parts along the first axis; of texts, whose padding a model may leave out, with it again."""
    if len({part.shape[1:] for part in parts}) == 1:
        return torch.cat(list(parts))
    longest = max(part.shape[1] for part in parts)
    missing = [(part, longest - part.shape[1]) for part in parts]
    return torch.cat([nn.functional.pad(each, (0, 0, 0, more)) for each, more in missing])


def _of_what_is_seen(
    teacher: nn.Module, x: Rows, layers: Sequence[str], optimisation: Optimisation
) -> Callable[[Tensor, Tensor], Layers]:
    """As `asking`, of inputs as they are seen (N, *shape) and the numbers of their rows (N,)."""
    if not optimisation.augment:
        ask = asking(teacher, x, layers)
        return lambda _seen, rows: ask(rows)

    @torch.no_grad()
    def anew(seen: Tensor, _rows: Tensor) -> Layers:
        return forward_with(teacher, seen, layers)

    return anew


def _before(
    term: Term,
    first: First,
    student: nn.Module,
    ask: Callable[[Tensor, Tensor], Layers],
    x: Rows,
    optimisation: Optimisation,
    generator: torch.Generator,
) -> None:
    """What a term learns before the student's own training; it is fixed afterwards."""
    alone = first.learned
    learner = nn.ModuleList([student, term.compared.student]) if alone is None else alone

    def loss(_: nn.Module, x: Tensor, rows: Tensor) -> Tensor:
        told = ask(x, rows)
        seen = forward_with(student, x, term.student) if alone is None else {}
        ours = [seen[name] for name in term.student if name in seen]
        return first.loss(ours, [told[name] for name in term.teacher])

    rows = torch.arange(len(x))
    own = optimisation.model_copy(update={"epochs": first.epochs})
    fit(learner, (x, rows), loss, own, generator)
    if alone is not None:
        alone.requires_grad_(requires_grad=False)
