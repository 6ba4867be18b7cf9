"""Forms of knowledge in what transformers make of each token of a text."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from fedkd.errors import ConfigError
from fedkd.knowledge import tokens
from fedkd.learning.forms.adapters import Shape
from fedkd.learning.forms.base import Compared, Form, Weighted
from fedkd.rng import torch_default

Shapes = Sequence[Shape]


class PKD(Weighted):
    """Parameters of `pkd`."""

    weight: float = Field(default=10.0, gt=0)


class Attentions(Weighted):
    """Parameters of `attention-scores` and `minilm`."""

    heads: PositiveInt = 1
    """How many both attentions are cut into: a divisor of both widths."""


def _widened(student: Shapes, teacher: Shapes, generator: torch.Generator) -> list[nn.Module]:
    """Of each pair of layers what makes the student's states as wide as the teacher's."""
    found: list[nn.Module] = []
    for ours, theirs in zip(student, teacher, strict=True):
        _require_states(ours, theirs)
        with torch_default(generator):
            same = ours[-1] == theirs[-1]
            found.append(nn.Identity() if same else nn.Linear(ours[-1], theirs[-1]))
    return found


def _require_states(*shapes: Shape) -> None:
    for shape in shapes:
        if len(shape) != 2:
            raise ConfigError(
                f"a layer gives features {shape}: expected states of tokens (K, D), as a "
                "transformer's block gives them"
            )


def _by_layer(
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    student: Shapes,
    teacher: Shapes,
    generator: torch.Generator,
) -> Compared:
    """The sum of a loss of states over pairs of layers, the student's adapted where narrower."""

    def total(ours: Sequence[Tensor], theirs: Sequence[Tensor], counted: Tensor) -> Tensor:
        both = zip(ours, theirs, strict=True)
        return torch.stack([loss(s, t, counted) for s, t in both]).sum(dim=0)

    return _compared(total, _widened(student, teacher, generator))


def _compared(loss: Callable[..., Tensor], adapters: Sequence[nn.Module]) -> Compared:
    """A loss that is told which tokens count, in place of targets.

    The student's last layer are its inputs as what counts, see `Form.masked`.
    """

    def total(ours: Sequence[Tensor], theirs: Sequence[Tensor], _y: Tensor) -> Tensor:
        *states, counted = ours
        counted = counted[:, : max(each.shape[1] for each in states)].bool()
        shown, known = ([_as_long_as(each, counted) for each in side] for side in (states, theirs))
        return loss(shown, known, counted)

    teacher = nn.ModuleList(nn.Identity() for _ in adapters)
    return Compared(total, nn.ModuleList(adapters), teacher)


def _as_long_as(states: Tensor, counted: Tensor) -> Tensor:
    """States (N, K', D) with as many tokens as `counted` (N, K): padding is cut, or added."""
    return F.pad(states, (0, 0, 0, counted.shape[1] - states.shape[1]))


def _hidden(_params: Weighted, *about: Any) -> Compared:
    return _by_layer(tokens.hidden, *about)


def _cosine(_params: Weighted, *about: Any) -> Compared:
    return _by_layer(tokens.cosine, *about)


def _pkd(_params: PKD, *about: Any) -> Compared:
    return _by_layer(lambda s, t, _counted: tokens.patient(s, t), *about)


def _scores(params: Attentions, student: Shapes, teacher: Shapes, _: torch.Generator) -> Compared:
    """Layers are queries and keys by turns."""
    _require(params, student, teacher, 2, "a query and a key")

    def loss(ours: Sequence[Tensor], theirs: Sequence[Tensor], counted: Tensor) -> Tensor:
        both = [(n, n + 1) for n in range(0, len(ours), 2)]
        return _among(tokens.scores, both, ours, theirs, counted, params.heads)

    return _compared(loss, [nn.Identity() for _ in student])


def _minilm(params: Attentions, student: Shapes, teacher: Shapes, _: torch.Generator) -> Compared:
    """Layers are a query, a key and a value."""
    _require(params, student, teacher, 3, "a query, a key and a value")

    def loss(ours: Sequence[Tensor], theirs: Sequence[Tensor], counted: Tensor) -> Tensor:
        first = range(0, len(ours), 3)
        both = [pair for n in first for pair in ((n, n + 1), (n + 2, n + 2))]
        return _among(tokens.relation, both, ours, theirs, counted, params.heads)

    return _compared(loss, [nn.Identity() for _ in student])


def _among(
    loss: Callable[..., Tensor],
    both: Sequence[tuple[int, int]],
    ours: Sequence[Tensor],
    theirs: Sequence[Tensor],
    counted: Tensor,
    heads: int,
) -> Tensor:
    """The sum of a loss of two layers of each model, such as a query and a key."""
    values = [
        loss((ours[a], ours[b]), (theirs[a], theirs[b]), counted, heads=heads) for a, b in both
    ]
    return torch.stack(values).sum(dim=0)


def _require(params: Attentions, student: Shapes, teacher: Shapes, each: int, what: str) -> None:
    if len(student) % each:
        raise ConfigError(f"{len(student)} layers are named: expected {what} of each attention")
    for shape in (*student, *teacher):
        _require_states(shape)
        if shape[-1] % params.heads:
            raise ConfigError(
                f"heads is {params.heads}: expected a divisor of the widths of both models, of "
                f"which one is {shape[-1]}"
            )


def _of_tokens(
    paper: str, build: Callable[..., Compared], params: type[Weighted] = Weighted
) -> Form:
    return Form(paper, "named", build, params, asks=("text",), masked=True)


FORMS = {
    "hidden-states": _of_tokens("Jiao et al. 2020, arXiv:1909.10351", _hidden),
    "attention-scores": _of_tokens("Jiao et al. 2020, arXiv:1909.10351", _scores, Attentions),
    "pkd": _of_tokens("Sun et al. 2019, arXiv:1908.09355", _pkd, PKD),
    "cosine": _of_tokens("Sanh et al. 2019, arXiv:1910.01108", _cosine),
    "minilm": _of_tokens("Wang et al. 2020, arXiv:2002.10957", _minilm, Attentions),
}
