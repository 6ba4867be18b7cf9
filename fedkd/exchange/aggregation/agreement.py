"""Agreement: who says the same of the same inputs as the others do, and who does not.

An answer is taken for what it says of one input beside another: a client's mean answer is taken
off, so that neither what it holds most of nor one loud answer to everything counts, and its length
does not count either. What is left of two honest clients points the same way, however skewed their
data, since both learned from the same world; a lie points elsewhere, or nowhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

_FAR = 1 / 3
"""The least agreement, as a share of the median's, of a client that is heard. Honest clients have
0.48 and more of it under label skew (Dirichlet 0.3), flipped and scaled answers at most 0.25."""
_LOUD = 3.0
"""How many times the median's length a client's answers may have."""
_SWEEPS = 10
"""After which who is heard no longer changes, or goes back and forth."""
_TINY = 1e-12


@dataclass(frozen=True)
class Screened:
    """What a server found of a round's clients."""

    agreement: dict[int, float]
    """By client, in [-1, 1], see `agreement`; empty where nothing could be compared."""
    left_out: tuple[int, ...] = ()
    """Who does not agree with the rest."""
    drawn_nearer: Mapping[int, float] = field(default_factory=dict)
    """Whose model was too far from all others, and by what factor its distance was cut."""


def agreement(said: Tensor) -> Tensor:
    """How well each client agrees with the others, as a cosine: (K, N, *A) -> (K,) in [-1, 1].

    At first a client agrees with others as well as with the one that agrees f-th best with it, f
    being the largest minority, (K - 1) // 2: of f that lie together each has only f - 1 like
    itself. Then with the mean of those that are heard, itself left out, and so on until these stay
    the same.

    Args:
        said: what K clients answer to the same N inputs, on one scale, such as probabilities; what
            is not finite agrees with nobody.

    Returns:
        float64; zeros where fewer than 3 clients answer, of which none can be told to lie, or where
        no two agree.
    """
    clients = len(said)
    if clients < 3:
        return torch.zeros(clients, dtype=torch.float64)
    directions = _directions(said)
    alike = directions @ directions.T
    others = alike.masked_fill(torch.eye(clients, dtype=torch.bool), -torch.inf)
    found = others.sort(dim=1, descending=True).values[:, (clients - 1) // 2 - 1]
    heard = kept(found)
    for _ in range(_SWEEPS):
        if not bool((found > 0).any()):
            break
        # The direction of the others' mean, from the cosines alone: |sum d| and d . sum d.
        among = alike * heard
        towards = among.sum(dim=1) - alike.diagonal() * heard
        length = (heard.double() @ alike @ heard.double()) - heard * (
            2 * among.sum(dim=1) - alike.diagonal()
        )
        found = towards / length.clamp(min=_TINY).sqrt()
        if torch.equal(heard, now := kept(found)):
            break
        heard = now
    return found.clamp(-1, 1)


def kept(agreements: Tensor) -> Tensor:
    """Who is heard, bool (K,): who agrees more than a third as well as the median of all.

    At most a minority is left out, those who agree least; nobody where most agree with nobody.
    """
    middle = agreements.sort().values[len(agreements) // 2]  # an honest client's, if most are
    if middle <= 0:
        return torch.ones(len(agreements), dtype=torch.bool)
    heard = agreements > _FAR * middle
    most = (len(agreements) - 1) // 2
    if int((~heard).sum()) > most:
        worst = agreements.argsort(stable=True)[:most]
        heard = torch.ones_like(heard)
        heard[worst] = False
    return heard


def quieted(answers: Tensor) -> Tensor:
    """Answers (K, N, *A) of which none is longer than three times the median, over all inputs."""
    factors = no_longer(answers.detach().flatten(1).double().norm(dim=1))
    return answers * factors.to(answers.dtype).view(-1, *[1] * (answers.dim() - 1))


def no_longer(lengths: Tensor) -> Tensor:
    """By how much each of lengths (K,) is to be cut, so that none is above three times the median.

    Factors in (0, 1].
    """
    return (_LOUD * lengths.median() / lengths.clamp(min=_TINY)).clamp(max=1.0)


def _beside(said: Tensor) -> Tensor:
    """What each client says of one input beside another: (K, N, *A) -> (K, N * A), float64."""
    rows = said.double()
    return (rows - rows.mean(dim=1, keepdim=True)).flatten(1)


def _directions(said: Tensor) -> Tensor:
    beside = _beside(said)
    beside = torch.where(beside.isfinite().all(dim=1, keepdim=True), beside, 0.0)
    lengths = beside.norm(dim=1, keepdim=True)
    return torch.where(lengths > _TINY, beside / lengths.clamp(min=_TINY), 0.0)
