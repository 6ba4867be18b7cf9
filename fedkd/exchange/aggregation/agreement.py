"""Agreement: who says the same of the same inputs as the others do, and who does not.

An answer is taken for what it says of one input beside another: a client's mean answer is taken
off, so that neither what it holds most of nor one loud answer to everything counts, and its length
does not count either. What is left of two honest clients points the same way, however skewed their
data, since both learned from the same world; a lie points elsewhere, or nowhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

FAR = 1 / 3
"""The least agreement, as a share of the median's, of a client that is heard. Honest clients have
0.48 and more of it under label skew (Dirichlet 0.3), flipped and scaled answers at most 0.25."""
CONTRADICTS = 1 / 8
"""The most contradiction of a client that is heard. Honest clients come to 0.10, and most to less
than 0 (Dirichlet 0.3), reordered answers (FDLA) of a trained model to 0.15 and more."""
_SINGLY = 1 / 32
"""The most contradiction of single others, beyond the largest minority, of a client that is heard:
what liars call together makes an honest client contradict the rest, but not one by one."""
FEWEST = 3
"""Clients, or equal models, of which one can be told to be unlike the others."""
_LOUD = 3.0
"""How many times the median's length a client's answers, or what it learned of one input of a
layer, may have."""
_SWEEPS = 10
"""After which who is heard no longer changes, or goes back and forth."""
_PART = 4096
"""Answers of each client that are compared at a time, so that a memory holds them."""
_TINY = 1e-12


@dataclass(frozen=True)
class Screened:
    """What a server found of a round's clients."""

    agreement: dict[int, float]
    """By client, in [-1, 1], see `agreement`; empty where nothing could be compared."""
    contradiction: Mapping[int, float] = field(default_factory=dict)
    """In [-1, 1], see `contradiction`; empty where answers are no classes."""
    left_out: tuple[int, ...] = ()
    """Who does not agree with the rest."""
    moves: Mapping[int, float] = field(default_factory=dict)
    """How well what each model learned, as a direction of its weights, agrees with the others'."""
    alone: Mapping[int, float] = field(default_factory=dict)
    """How much of it, by length, it learned of what the others did not: see `beyond`; in [0, 1]."""
    drawn_nearer: Mapping[int, float] = field(default_factory=dict)
    """Whose model was too far from all others, and by what factor its distance was cut."""


def alike(said: Tensor) -> Tensor:
    """Cosines of what clients say of the same inputs, (K, N, *A) -> (K, K), float64.

    Args:
        said: on one scale, such as probabilities; what is not finite is like nobody's.
    """
    beside = (rows := said.double()) - rows.mean(dim=1, keepdim=True)
    return cosines((flat := beside.flatten(1)) @ flat.T)


def cosines(products: Tensor) -> Tensor:
    """Inner products of K vectors (K, K) as cosines; 0 beside one that is not finite or is 0."""
    products = products.double().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    lengths = products.diagonal().clamp(min=0).sqrt()
    real = lengths > _TINY
    scale = torch.where(real, 1 / lengths.clamp(min=_TINY), 0.0)
    return products * scale[:, None] * scale


def agreement(alike: Tensor, *, least: float = FAR) -> Tensor:
    """How well each client agrees with the others: cosines (K, K) -> (K,) in [-1, 1], float64.

    At first a client agrees with others as well as with the one that agrees f-th best with it, f
    being the largest minority, (K - 1) // 2: of f that lie together each has only f - 1 like
    itself. Then with the mean of those that are heard, itself left out, and so on until these stay
    the same.

    Args:
        alike: of K clients.
        least: as in `kept`.

    Returns:
        Zeros where fewer than 3 clients answer, of which none can be told to lie.
    """
    clients = len(alike)
    if clients < FEWEST:
        return torch.zeros(clients, dtype=torch.float64)
    others = alike.masked_fill(torch.eye(clients, dtype=torch.bool), -torch.inf)
    found = others.sort(dim=1, descending=True).values[:, (clients - 1) // 2 - 1]
    heard = kept(found, least=least)
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
        if torch.equal(heard, now := kept(found, least=least)):
            break
        heard = now
    return found.clamp(-1, 1)


def kept(agreements: Tensor, *, least: float = FAR) -> Tensor:
    """Who is heard, bool (K,): who agrees more than `least` times as well as the median of all.

    At most a minority is left out, those who agree least; nobody where most agree with nobody.
    """
    middle = agreements.sort().values[len(agreements) // 2]  # an honest client's, if most are
    if middle <= 0:
        return torch.ones(len(agreements), dtype=torch.bool)
    heard = agreements > least * middle
    most = (len(agreements) - 1) // 2
    if int((~heard).sum()) > most:
        worst = agreements.argsort(stable=True)[:most]
        heard = torch.ones_like(heard)
        heard[worst] = False
    return heard


def contradiction(said: Tensor, heard: Tensor, told: Tensor) -> Tensor:
    """How often a client rules out just the class that the others call, beyond chance: (K,).

    It rules out the class to which it gives the least, of several alike each in part. Chance is how
    often that would be the called one if all its answers were dealt to inputs anew. So who never
    saw a class, and rules it out everywhere, contradicts nobody; who knows the right class and
    denies it does, though all else that it says be true.

    Args:
        said: probabilities (K, N, *S, C).
        heard: who else is believed, bool (K,).
        told: where a client says anything, bool (K, N, *S).

    Returns:
        In [-1, 1], float64; 0 of who says nothing.
    """
    rows, told = said.flatten(1, -2).nan_to_num(nan=0.0), told.flatten(1)
    together = torch.zeros(rows.shape[1:], dtype=torch.float64)
    for own in rows[heard]:
        together += own
    found = torch.zeros(len(rows), dtype=torch.float64)
    for client, (own, where) in enumerate(zip(rows, told, strict=True)):
        called = (together - own if heard[client] else together)[where].argmax(dim=-1)
        least = (own == own.amin(dim=-1, keepdim=True))[where].double()
        out = least / least.sum(dim=-1, keepdim=True)
        if len(out):
            often = torch.bincount(called, minlength=out.shape[-1]).double() / len(out)
            met = out.gather(1, called[:, None]).mean()
            found[client] = met - out.mean(dim=0) @ often
    return found


def uncontradicted(said: Tensor, heard: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
    """Contradiction (K,), and who of those heard does not contradict the others, bool (K,).

    Whoever does counts no longer when the others are looked at again. At most a minority of all is
    left out, those who contradict most; nobody who contradicts no more than a minority one by one,
    or colluders could have an honest client left out, calling together what it rules out.

    Args:
        said: as in `contradiction`.
        heard: who agrees with the rest, bool (K,).
        told: as in `contradiction`.
    """
    most, now = (len(heard) - 1) // 2 - int((~heard).sum()), heard
    suspect = heard & (_singly(said, told) > _SINGLY)
    for _ in range(_SWEEPS):
        found, before = contradiction(said, now, told), now
        worst = found.masked_fill(~suspect, -1.0).argsort(descending=True, stable=True)[:most]
        now = heard.clone()
        now[worst] &= ~suspect[worst] | (found[worst] <= CONTRADICTS)
        if torch.equal(now, before):
            break
    return found, now


def _singly(said: Tensor, told: Tensor) -> Tensor:
    """How often a client rules out what a single other calls, beyond chance: (K,), float64.

    Of the others it is the one after a minority of those whom it contradicts most.

    Args:
        said: as in `contradiction`.
        told: as in `contradiction`.
    """
    clients, classes = len(said), said.shape[-1]
    met = torch.zeros(clients, clients, dtype=torch.float64)
    overall, often = met.new_zeros(clients, classes), met.new_zeros(clients, classes)
    answers, spoken = said.flatten(1, -2), told.flatten(1).double()
    for start in range(0, answers.shape[1], _PART):
        where = spoken[:, start : start + _PART, None]
        rows = answers[:, start : start + _PART].nan_to_num(nan=0.0)
        least = (rows == rows.amin(dim=-1, keepdim=True)).double()
        out = least / least.sum(dim=-1, keepdim=True) * where
        called = F.one_hot(rows.argmax(dim=-1), classes) * where
        met += out.flatten(1) @ called.flatten(1).T
        overall += out.sum(dim=1)
        often += called.sum(dim=1)
    count = spoken.sum(dim=1, keepdim=True).clamp(min=1)
    met = met / count - (overall / count) @ (often / count).T
    others = met.masked_fill(torch.eye(clients, dtype=torch.bool), -torch.inf)
    return others.sort(dim=1, descending=True).values[:, (clients - 1) // 2]


def beyond(learned: Tensor) -> Tensor:
    """How much clients learned of inputs of a layer of which the others learn nearly nothing: (K,).

    What goes into a backdoor shows there: honest records hold nothing that moves the weights of its
    trigger (Wang et al. 2020, arXiv:2007.05084, and Zhang et al. 2022, Neurotoxin,
    arXiv:2206.10341, on such edges). Each input has a share of the length of all that a client
    learned; what counts is how far that is above three times the median client's.

    Args:
        learned: how a layer's weights differ from those before, (K, outputs, inputs, *S).

    Returns:
        Squares of lengths, float64, none above that of all a client learned there.
    """
    ways = learned.double().transpose(1, 2).flatten(2)
    lengths = ways.flatten(1).norm(dim=1).clamp(min=_TINY)
    shares = (ways.norm(dim=2) / lengths[:, None]).nan_to_num(nan=0.0)
    over = (shares - _LOUD * shares.median(dim=0).values).clamp(min=0)
    squares: Tensor = over.square().sum(dim=1) * lengths.square()
    return squares


def quieted(answers: Tensor) -> Tensor:
    """Answers (K, N, *A) of which none is longer than three times the median, over all inputs."""
    factors = no_longer(answers.detach().flatten(1).double().norm(dim=1))
    return answers * factors.to(answers.dtype).view(-1, *[1] * (answers.dim() - 1))


def no_longer(lengths: Tensor) -> Tensor:
    """By how much each of lengths (K,) is to be cut, so that none is above three times the median.

    Factors in (0, 1]; 1 of fewer than three, of which none is known to be the honest length.
    """
    if len(lengths) < FEWEST:
        return torch.ones_like(lengths)
    return (_LOUD * lengths.median() / lengths.clamp(min=_TINY)).clamp(max=1.0)
