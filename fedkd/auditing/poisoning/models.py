"""Attacks on models: what hostile clients send in place of what they trained, as state dicts.

Integers, such as BatchNorm's count of batches, stay as they are: no attack here is made of them.
"""

from collections.abc import Callable, Sequence
from statistics import NormalDist

import torch
from torch import Tensor

from fedkd.exchange.messages import Tensors

_LEAST_DEVIATIONS = 1.0
"""Standard deviations that ALIE moves by at least: by the paper's rule a few attackers of a few
clients would hardly move at all."""


def shouting(model: Tensors, bias: str, target: int, peak: float) -> dict[str, Tensor]:
    """A model that answers one class, loudly, to every input: its last bias says so.

    Args:
        model: a state dict.
        bias: the name of the last layer's bias, (C,).
        target: the class.
        peak: is added to the class's bias.
    """
    loud = model[bias].clone()
    loud[target] += peak
    return {**model, bias: loud}


def rescaled(model: Tensors, start: Tensors, factor: float) -> dict[str, Tensor]:
    """The way from one model to another, so many times.

    Of the sign turned it is a sign attack. With as many times as there are clients to one attacker
    it is model replacement (Bagdasaryan et al., AISTATS 2020, arXiv:1807.00459): the mean of all
    becomes the attacker's model, where the others have come to rest.

    Args:
        model: where it ends, a state dict.
        start: where it begins, with the same names.
        factor: how many times.
    """
    return _each(model, lambda name, end: start[name] + factor * (end - start[name]))


def a_little(honest: Sequence[Tensors], *, clients: int, hostile: int) -> dict[str, Tensor]:
    """ALIE, "a little is enough" (Baruch et al., NeurIPS 2019, arXiv:1902.06156).

    The mean in each coordinate, less so many standard deviations over clients that a rule takes it
    for one of the crowd: as many as leave enough honest clients farther out to make a majority
    together with the attackers.

    The paper's attackers know their own updates alone. These know all: with one of them there is no
    deviation.

    Args:
        honest: the models that clients trained, state dicts with the same names, two at least.
        clients: how many clients there are.
        hostile: how many of them are hostile.
    """
    deviations = max(alie_deviations(clients, hostile), _LEAST_DEVIATIONS)

    def moved(name: str, _: Tensor) -> Tensor:
        each = torch.stack([model[name] for model in honest])
        return each.mean(dim=0) - deviations * each.std(dim=0)

    return _each(honest[0], moved)


def alie_deviations(clients: int, hostile: int) -> float:
    """ALIE's z: how many standard deviations `hostile` of n `clients` may move by.

    With s = floor(n/2) + 1 - m honest clients to win over, Phi(z) = (n - m - s) / (n - m); a
    majority of attackers needs nobody, and moves by 3.
    """
    won = clients // 2 + 1 - hostile
    if won <= 0:
        return 3.0
    share = (clients - hostile - won) / (clients - hostile)
    return NormalDist().inv_cdf(max(share, 0.01))


def against(
    honest: Sequence[Tensors], start: Tensors, *, clients: int, hostile: int
) -> dict[str, Tensor]:
    """Inner-product manipulation (Xie et al., UAI 2019, arXiv:1903.03936).

    The mean honest update, turned round, by just so much that the mean over all clients is as long
    as the honest one and points the other way. The paper asks for any factor above (n - m) / m,
    from which on the inner product is negative; this is twice that.

    Args:
        honest: the models that honest clients trained, state dicts with the same names.
        start: where they began.
        clients: n.
        hostile: m.
    """
    factor = 2 * (clients - hostile) / hostile

    def turned(name: str, _: Tensor) -> Tensor:
        mean = torch.stack([model[name] for model in honest]).mean(dim=0)
        return start[name] - factor * (mean - start[name])

    return _each(honest[0], turned)


def _each(model: Tensors, change: Callable[[str, Tensor], Tensor]) -> dict[str, Tensor]:
    return {
        name: change(name, tensor) if tensor.is_floating_point() else tensor
        for name, tensor in model.items()
    }
