"""Knowledge in what a transformer makes of each token: states, and attention among them.

States are (N, K, D) of K tokens; `counted`, bool (N, K), is false for padding, of which neither
value nor gradient comes. Queries, keys and values are states too, with heads side by side in D.
"""

import torch
from torch import Tensor

from fedkd.knowledge.checks import same_shape
from fedkd.knowledge.geometry import unit

UNSEEN = -10_000.0
"""The score of a token that no other looks at; finite, so that no difference of two is NaN."""


def hidden(student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
    """Mean squared distance of states, after an adapter of widths, per sample (TinyBERT).

    Jiao et al. 2020, arXiv:1909.10351, equation 8; of the embeddings equation 9.

    Args:
        student: states (N, K, D), adapted to the teacher's width.
        teacher: states (N, K, D).
        counted: bool (N, K).

    Returns:
        (N,), at least 0; 0 where the states agree.

    Raises:
        ValueError: the shapes differ.
    """
    same_shape(student=student, teacher=teacher)
    return _mean((student - teacher).square().mean(dim=2), counted)


def cosine(student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
    """1 - the cosine of states, per sample (DistilBERT).

    Sanh et al. 2019, arXiv:1910.01108, section 3. The rest is as of `hidden`.

    Returns:
        (N,) in [0, 2]; blind to either side's scale; 0 where the directions agree.

    Raises:
        ValueError: the shapes differ.
    """
    same_shape(student=student, teacher=teacher)
    return _mean(1 - (unit(student, dim=2) * unit(teacher, dim=2)).sum(dim=2), counted)


def patient(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of the first token's states at length 1, per sample (BERT-PKD).

    Sun et al. 2019, arXiv:1908.09355, equation 7: the first token stands for the text ([CLS]).

    Args:
        student: states (N, K, D), adapted to the teacher's width.
        teacher: states (N, K', D).

    Returns:
        (N,) in [0, 4]; blind to either side's scale; 0 where the directions agree.

    Raises:
        ValueError: widths or batches differ.
    """
    ours, theirs = student[:, 0], teacher[:, 0]
    same_shape(student=ours, teacher=theirs)
    return (unit(ours, dim=1) - unit(theirs, dim=1)).square().sum(dim=1)


def scores(
    student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], counted: Tensor, *, heads: int
) -> Tensor:
    """Mean squared distance of attention's scores before the softmax, per sample (TinyBERT).

    Jiao et al. 2020, arXiv:1909.10351, equation 7. Scores are Q K^T / sqrt(d) of each head.

    Args:
        student: queries and keys (N, K, D).
        teacher: queries and keys (N, K, D'), of as many heads.
        counted: bool (N, K).
        heads: of both; a divisor of both widths.

    Returns:
        (N,), at least 0; 0 where the scores agree.

    Raises:
        ValueError: heads is no divisor of a width, or batches or tokens differ.
    """
    ours, theirs = _related(*student, heads=heads), _related(*teacher, heads=heads)
    same_shape(student=ours, teacher=theirs)
    both = (counted.unsqueeze(1) & counted.unsqueeze(2)).flatten(1)
    return _mean((ours - theirs).square().mean(dim=1).flatten(1), both)


def relation(
    student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], counted: Tensor, *, heads: int
) -> Tensor:
    """KL of how tokens relate to each other, the teacher's from the student's (MiniLM), per sample.

    A relation is the softmax of A B^T / sqrt(d) of each head: of queries and keys it is attention,
    of values and values MiniLM's value relation. Wang et al. 2020, arXiv:2002.10957, equations 6
    and 9, and with heads that are cut anew, so that any two widths go, arXiv:2012.15828.

    Args:
        student: A and B (N, K, D).
        teacher: A and B (N, K, D'), of any other width.
        counted: bool (N, K).
        heads: a divisor of both widths.

    Returns:
        (N,), in nats, at least 0: the mean over heads and tokens that count; 0 where both agree.

    Raises:
        ValueError: heads is no divisor of a width, or batches or tokens differ.
    """
    ours, theirs = _related(*student, heads=heads), _related(*teacher, heads=heads)
    same_shape(student=ours, teacher=theirs)
    unseen = ~counted[:, None, None, :]
    s, t = (each.masked_fill(unseen, UNSEEN).log_softmax(dim=-1) for each in (ours, theirs))
    return _mean((t.exp() * (t - s)).sum(dim=-1).mean(dim=1), counted)


def _related(a: Tensor, b: Tensor, *, heads: int) -> Tensor:
    """A B^T / sqrt(d) of each head, of (N, K, D) each: (N, heads, K, K)."""
    width = a.shape[-1]
    if width % heads:
        raise ValueError(f"expected heads={heads} to divide the width {width}")
    left, right = (each.reshape(*each.shape[:2], heads, -1).transpose(1, 2) for each in (a, b))
    found: Tensor = left @ right.transpose(-1, -2) * (width // heads) ** -0.5
    return found


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """The mean of values (N, M) over those that count; 0 where none does."""
    return torch.where(counted, values, 0.0).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
