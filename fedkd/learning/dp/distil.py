"""Learning from a finished teacher with differential privacy: exact gradients for every record.

DP-SGD wants a model that answers with rows and a loss of each row alone. So the student shows its
logits and its adapted layers side by side in one row, and a record's target is its own number, by
which the loss looks up what the teacher says of it and its label.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fedkd.config import Optimisation
from fedkd.data.types import Samples
from fedkd.errors import ConfigError
from fedkd.learning import forms
from fedkd.learning.dp import sgd
from fedkd.learning.dp.sgd import Noise
from fedkd.learning.forms.terms import Layers, Terms
from fedkd.learning.loop import OnEpoch
from fedkd.learning.offline import asking
from fedkd.models.layers import LOGITS
from fedkd.rows import Rows
from fedkd.tasks import Likelihood
from fedkd.tasks.likelihoods.categorical import CATEGORICAL


class Tap(nn.Module):
    """Keeps what passes it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """What comes in."""
        self.seen = x
        return x


class FlatAnswers(nn.Module):
    """A student that answers with all that terms compare: (N, *shape) -> (N, width).

    Only inside `flat_answers`.
    """

    def __init__(self, student: nn.Module, terms: Terms, taps: dict[str, nn.Module]) -> None:
        super().__init__()
        self.student = student
        self.adapters = nn.ModuleList(term.compared.student for term in terms.all)
        self._places = {name: self._find(tap) for name, tap in taps.items()}
        self._names = [term.student for term in terms.all]
        self.answer: tuple[int, ...] = ()
        """The shape of one record's answer, as of the last call."""
        self.shapes: list[list[tuple[int, ...]]] = []
        """Of each term's adapted layers, as of the last call."""

    def forward(self, x: Tensor) -> Tensor:
        """The answer, then each term's adapted layers, flattened."""
        layers = {LOGITS: self.student(x)}
        self.answer = tuple(layers[LOGITS].shape[1:])
        for name, place in self._places.items():
            layers[name] = self.get_submodule(place).seen
        adapted = [
            [adapters.get_submodule(str(i))(layers[name]) for i, name in enumerate(names)]
            for adapters, names in zip(self.adapters, self._names, strict=True)
        ]
        self.shapes = [[tuple(each.shape[1:]) for each in term] for term in adapted]
        shown = [layers[LOGITS], *(each for term in adapted for each in term)]
        return torch.cat([each.flatten(1) for each in shown], dim=1)

    def _find(self, tap: nn.Module) -> str:
        """By name, so that a copy of this module looks at its own taps."""
        names: dict[nn.Module, str] = {module: name for name, module in self.named_modules()}
        return names[tap]


@contextmanager
def flat_answers(student: nn.Module, terms: Terms) -> Iterator[FlatAnswers]:
    """The student as `FlatAnswers`; afterwards it is as it was, but for what it learned."""
    names = [name for name in terms.student if name != LOGITS]
    layers = {name: student.get_submodule(name) for name in names}
    parents = {name: student.get_submodule(name.rpartition(".")[0]) for name in names}
    taps: dict[str, nn.Module] = {name: Tap() for name in names}
    try:
        for name, tap in taps.items():
            setattr(parents[name], name.rpartition(".")[2], nn.Sequential(layers[name], tap))
        yield FlatAnswers(student, terms, taps)
    finally:
        for name, layer in layers.items():
            setattr(parents[name], name.rpartition(".")[2], layer)


def teach(
    student: nn.Module,
    teacher: nn.Module,
    terms: Terms,
    samples: Samples,
    optimisation: Optimisation,
    noise: Noise,
    *,
    labels: float = 1.0,
    likelihood: Likelihood = CATEGORICAL,
    like: Rows | None = None,
    shown: Rows | None = None,
    on_epoch: OnEpoch | None = None,
) -> None:
    """As `offline.teach`, by `private.train`: what one record adds to a step is clipped and hidden.

    Whoever is to be hidden must not be in what the teacher learned from. The teacher's answers, the
    loss of an epoch and the number of records do not come out; `on_epoch` is told NaN. `like` are
    public inputs to try the student out on, see `protectable.check_model`; `shown` is what the
    teacher sees of the same records, where that is something else.

    Raises:
        ConfigError: a term cannot be protected, or see `protectable.check_model`.
        ValueError: see `private.train`.
        FederationError: training diverged.
    """
    ended = terms.following(on_epoch)
    with flat_answers(student, terms) as model:
        sgd.train(
            model,
            Samples(samples.x, torch.arange(len(samples))),
            optimisation,
            noise,
            loss=record_loss(
                model,
                terms,
                asking(teacher, samples.x if shown is None else shown, terms.teacher),
                samples.y,
                labels,
                likelihood=likelihood,
            ),
            like=like,
            on_epoch=lambda epoch: ended(epoch, math.nan),
        )


def record_loss(
    model: FlatAnswers,
    terms: Terms,
    ask: Callable[[Tensor], Layers],
    y: Tensor,
    labels: float,
    *,
    likelihood: Likelihood = CATEGORICAL,
) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of each record: what `model` says of it, (N, width), and its number, (N,), to (N,).

    Args:
        model: has been called on these records.
        terms: none that couples samples.
        ask: what the teacher says, by the records' numbers.
        y: all targets.
        labels: the weight of the negative log-likelihood.
        likelihood: of targets by answers.
    """

    def loss(said: Tensor, rows: Tensor) -> Tensor:
        sizes = [math.prod(shape) for term in model.shapes for shape in term]
        answer, *flat = torch.split(said, [said.shape[1] - sum(sizes), *sizes], dim=1)
        parts = iter(flat)
        told, own = ask(rows), y[rows.to(y.device)].to(rows.device)
        total = labels * likelihood.nll(answer.reshape(-1, *model.answer), own)
        for term, shapes in zip(terms.all, model.shapes, strict=True):
            ours = [next(parts).reshape(-1, *shape) for shape in shapes]
            total = total + term.weight * term.compare(ours, told, own)
        return total

    return loss


def check_forms(names: Sequence[str]) -> None:
    """Refuse forms of knowledge that DP-SGD cannot protect.

    Raises:
        ConfigError: a form couples samples, compares tokens, or learns something before the
            student.
    """
    fit = [
        name
        for name, form in forms.BUILT_IN.items()
        if not (form.couples or form.first or form.masked or form.joint)
    ]
    for number, name in enumerate(names):
        form = forms.find(name)
        reason = ""
        if form.couples:
            reason = (
                "compares the samples of a batch with each other, so that a record moves the "
                "gradients of all others and cannot be clipped alone"
            )
        elif form.first:
            reason = "learns from the records before the student does, which nothing pays for"
        elif form.masked:
            reason = "compares tokens, which gradients of single records do not reach yet"
        elif form.joint:
            reason = (
                "learns something of several layers at once beside the student, which gradients of "
                "single records do not reach yet"
            )
        if reason:
            raise ConfigError(
                f"knowledge[{number}] ({name}) cannot be learned under [privacy]: it {reason}; "
                f"choose among {', '.join(fit)}, or leave out [privacy]"
            )
