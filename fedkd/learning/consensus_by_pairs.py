"""What teachers say together when each has seen some classes only: evidence by pairs of classes."""

import torch
from torch import Tensor

from fedkd.knowledge.checks import has_shape


def saturated(counts: Tensor, own_error: float) -> Tensor:
    """Sample counts n, of any shape -> 1 / (1 / n + own_error), float64; 0 stays 0.

    What as many samples are worth that have an error in common: the weights of a mean with random
    effects (DerSimonian and Laird 1986, Controlled Clinical Trials 7). Far below 1 / own_error a
    count is as it was, at 1 / own_error it is halved, and none comes to more than 1 / own_error.

    Args:
        counts: at least 0.
        own_error: at least 0: the variance of the error in common, over that of one sample.

    Raises:
        ValueError: `own_error` is negative.
    """
    if not own_error >= 0:
        raise ValueError(f"Expected own_error >= 0, got {own_error:g}.")
    n = counts.double()
    return n / (1 + own_error * n)


def pair_weights(counts: Tensor, *, absolute: float, own_error: float) -> Tensor:
    """Sample counts n (K, C) -> matrices M (K, C, C) of the consensus s = sum_k M_k l_k.

    From logits l_k a teacher's word on two classes is l_k^i - l_k^j: without a class prior in it,
    the log ratio of how likely both make the input. It is worth something where the teacher has
    learned from both, and the variance of a difference of two means, 1 / n^i + 1 / n^j, says how
    much. So s is the least-squares fit to all those differences,

        min_s sum_k [ sum_{i<j} w_k^ij ((s^i - s^j) - (l_k^i - l_k^j))^2
                      + absolute * sum_i n_k^i (s^i - l_k^i)^2 ],

    w_k^ij = n_k^i n_k^j / (n_k^i + n_k^j). A teacher also errs in ways that more samples do not
    mend, so n is `saturated`. The normal equations are Laplacian systems of a graph that joins two
    classes wherever somebody has seen both. The second term compares classes that no chain of
    teachers joins, by the logits as they are. Ours; the idea is that of coupling classifiers of two
    classes each (Hastie and Tibshirani 1998, Annals of Statistics 26) and of rankings from pairs
    (Jiang et al. 2011, HodgeRank, Mathematical Programming 127).

    Args:
        counts: at least 0: how many samples of each class a teacher has learned from.
        absolute: > 0.
        own_error: see `saturated`.

    Returns:
        float64; column c of M_k is 0 where teacher k has not seen c, and sum_k M_k is the identity
        on classes that somebody has seen, 0 on others.

    Raises:
        ValueError: a count or `own_error` is negative, or `absolute` is not positive.
    """
    if (counts < 0).any() or not absolute > 0:
        raise ValueError(
            f"Expected counts >= 0 and absolute > 0, got {counts.min().item():g} and {absolute:g}."
        )
    n = saturated(counts, own_error)
    both = n[:, :, None] + n[:, None, :]
    pairs = torch.where(both > 0, n[:, :, None] * n[:, None, :] / both, 0.0)
    # Of a class with itself there is a pair as well, which the difference takes out again.
    own = torch.diag_embed(pairs.sum(dim=2)) - pairs + absolute * torch.diag_embed(n)
    whole = own.sum(dim=0)
    seen = n.sum(dim=0) > 0
    # An unseen class has a row and a column of zeros, and 1 on the diagonal keeps them so.
    solved: Tensor = torch.linalg.solve(whole + torch.diag((~seen).double()), own)
    return solved


def by_pairs(logits: Tensor, counts: Tensor, *, absolute: float, own_error: float) -> Tensor:
    """(K, N, *S, C) -> (N, *S, C): the consensus of `pair_weights`.

    A class that nobody has seen gets the lowest logit of its place; where all are such, all get 0.

    Args:
        logits: of teachers trained with `supervised.balanced_offset`, so that no class prior is in
            them. What a teacher says of classes that it has not seen is not looked at.
        counts: n (K, C), at least 0: how many samples of each class a teacher has learned from.
        absolute: see `pair_weights`.
        own_error: likewise.

    Raises:
        ValueError: the shapes do not match; and as `pair_weights`.
    """
    has_shape((logits.shape[0], logits.shape[-1]), counts=counts)
    weights = pair_weights(counts, absolute=absolute, own_error=own_error).to(logits)
    together = torch.einsum("kcd,k...d->...c", weights, logits)
    unseen = (counts.sum(dim=0) == 0).to(logits.device)
    if unseen.all():
        return together
    lowest = together.masked_fill(unseen, float("inf")).amin(dim=-1, keepdim=True)
    return torch.where(unseen, lowest, together)
