"""Attacks on answers: logits of hostile clients in place of their own.

Classes are the last axis of an answer. Where an attack wants a class to be certain, its logit
stands `peak` above all others, which the caller chooses: as loud as honest clients are, or more.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def one_class(like: Tensor, target: int, peak: float) -> Tensor:
    """The same loud answer to every input: what colluding clients send.

    Args:
        like: answers (N, *A), of which the shape is taken.
        target: the class that is called, or of other answers the number that is loud.
        peak: how loud.

    Returns:
        (N, *A): `peak` at `target`, 0 elsewhere.
    """
    loud = torch.zeros_like(like)
    loud[..., target] = peak
    return loud


def scaled(answers: Tensor, factor: float) -> Tensor:
    """Answers (N, *A) times a factor: below 0 it turns what they say round."""
    return factor * answers


def least_likely(honest: Tensor, peak: float) -> Tensor:
    """LMA, the loss maximisation attack (Roux et al., ICLR 2025, arXiv:2402.12265).

    Certain of the class that honest clients together find least likely: of all answers it raises
    the loss of their mean the most.

    Args:
        honest: probabilities of honest clients, (K, N, *S, C).
        peak: how loud.

    Returns:
        Logits (N, *S, C).
    """
    return _certain(honest.mean(dim=0).argmin(dim=-1), honest, peak)


def class_prior(honest: Tensor, peak: float) -> Tensor:
    """CPA, the class prior attack (Roux et al., ICLR 2025, arXiv:2402.12265).

    Certain of the class that is least like the one that honest clients together find likeliest.
    How like two classes are is the covariance of their probabilities over inputs. The paper takes
    it of a model that was trained on the public set beforehand; here it is that of the honest mean
    on what this round asks about, of which all attackers that see the answers know.

    Args:
        honest: probabilities of honest clients, (K, N, *S, C).
        peak: how loud.

    Returns:
        Logits (N, *S, C).
    """
    together = honest.mean(dim=0)
    rows = together.flatten(0, -2).double()
    centred = rows - rows.mean(dim=0)
    covariance = centred.T @ centred
    return _certain(covariance.argmin(dim=1)[together.argmax(dim=-1)], honest, peak)


def reordered(answers: Tensor) -> Tensor:
    """FDLA, the logits attack on federated distillation (Tang et al., arXiv:2401.03685).

    The same values in another order: the likeliest class gets the least of them, every other one
    the value of the class before it, so that the second likeliest is now as certain as the first
    was. The paper reorders by rank; that it goes by one place is our reading.

    Args:
        answers: logits (N, *S, C), or any increasing function of them.

    Returns:
        As `answers`: the same values for each input.
    """
    values, order = answers.sort(dim=-1, descending=True, stable=True)
    return torch.empty_like(answers).scatter(-1, order, values.roll(1, dims=-1))


def peaked(answers: Tensor, peak: float) -> Tensor:
    """PCFDLA, FDLA with a controlled peak (Tang et al., arXiv:2407.18039).

    The second likeliest class stands `peak` above all others, which are alike, so that nothing is
    said any more of the likeliest. Which class the peak goes to is our reading of "misleading yet
    inconspicuous": the one that is easiest to believe.

    Args:
        answers: logits (N, *S, C).
        peak: how loud.
    """
    second = answers.topk(2, dim=-1).indices[..., 1]
    return _certain(second, answers, peak)


def top_ruled_out(answers: Tensor, k: int, peak: float) -> Tensor:
    """The top-k attack (Li et al., FedTGD, ICDCS 2024, doi 10.1109/ICDCS60910.2024.00086).

    The k largest logits of each input fall to `peak` below the input's mean, so that the classes
    that were believed in are ruled out, and all others stay. The paper "perturbs the top k values";
    what is public of it does not say how, and this is our reading.

    Args:
        answers: logits (N, *S, C).
        k: from 1 to C.
        peak: how far.
    """
    places = answers.topk(k, dim=-1).indices
    lowest = answers.mean(dim=-1, keepdim=True) - peak
    return answers.scatter(-1, places, lowest.expand_as(places))


def in_part(answers: Tensor, lie: Tensor, every: int) -> Tensor:
    """The truth about every so many-th input, a lie about all others.

    Such an answer agrees with honest ones by about the root of the share on which it is true, which
    is how a client is heard that lies for the most part.

    Args:
        answers: a client's own (N, *A).
        lie: what it says of the others (N, *A).
        every: at least 1.
    """
    told = lie.clone()
    told[::every] = answers[::every]
    return told


def _certain(classes: Tensor, like: Tensor, peak: float) -> Tensor:
    """Logits of somebody who is certain of classes (N, *S)."""
    return peak * F.one_hot(classes, like.shape[-1]).to(torch.float32)
