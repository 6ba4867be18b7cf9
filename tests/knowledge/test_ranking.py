"""The losses of rankings as their formulas say, user by user and rank by rank."""

from functools import partial

import numpy as np
import pytest
import torch
from agreement import Array, assert_agrees, fresh
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedkd.knowledge import ranking

WHERE = np.array([[1, 1, 0, 1, 1, 1], [1, 0, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]]).astype(bool)


def first(teacher: Array, row: int, k: int) -> tuple[list[int], list[int]]:
    """The items that count, the teacher's best first, and the best k of them."""
    counted = sorted(np.flatnonzero(WHERE[row]), key=lambda item: -teacher[row, item].real)
    return counted, counted[:k]


def by_rank(student: Array, teacher: Array, k: int, decay: float, discrepancy: float) -> Array:
    losses = []
    for row, s in enumerate(student):
        counted, best = first(teacher, row, k)
        own = sorted(counted, key=lambda item: -s[item].real)
        weights = [
            np.exp(-rank / decay) * np.tanh(max(0.0, discrepancy * (own.index(item) + 1 - rank)))
            for rank, item in enumerate(best, start=1)
        ]
        total = sum(weights) or 1.0
        losses.append(
            sum(w / total * np.log(1 + np.exp(-s[i])) for w, i in zip(weights, best, strict=True))
        )
    return np.array(losses)


def in_order(student: Array, teacher: Array, k: int) -> Array:
    losses = []
    for row, s in enumerate(student):
        counted, best = first(teacher, row, k)
        behind = [np.log(np.exp(s[counted[rank:]]).sum()) for rank in range(len(best))]
        losses.append(sum(b - s[i] for b, i in zip(behind, best, strict=True)) / len(best))
    return np.array(losses)


@pytest.mark.parametrize("k", [1, 3, 9])
@settings(max_examples=6, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_values_and_gradients_are_the_formulas(k: int, seed: int) -> None:
    where = torch.from_numpy(WHERE)
    how = {"k": k, "decay": 2.0, "discrepancy": 0.3}
    for loss, oracle in (
        (partial(ranking.ranking, **how), partial(by_rank, **how)),
        (partial(ranking.relaxed_ranking, k=k), partial(in_order, k=k)),
    ):
        teacher = fresh([(3, 6)], seed + 1)[0].detach()
        assert_agrees(
            partial(of_student, loss, teacher, where),
            partial(of_student, oracle, teacher.numpy().astype(complex), None),
            [(3, 6)],
            seed,
        )


def of_student(loss, teacher, where, student):  # type: ignore[no-untyped-def]
    return loss(student, teacher) if where is None else loss(student, teacher, where=where)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_student_in_the_teacher_s_order_learns_no_rank_and_is_likeliest_in_it(seed: int) -> None:
    student, teacher = (each.detach() for each in fresh([(4, 8), (4, 8)], seed))
    how = {"k": 5, "decay": 3.0, "discrepancy": 1.0}
    assert (ranking.ranking(3 * teacher, teacher, **how) == 0).all()
    assert (ranking.ranking(-teacher, teacher, **how) > 0).all()
    # Of all orders of the same logits the teacher's is the likeliest.
    sorted_like = torch.zeros_like(student).scatter(
        1, teacher.argsort(descending=True), student.sort(descending=True).values
    )
    relaxed = partial(ranking.relaxed_ranking, k=5)
    assert (relaxed(sorted_like, teacher) <= relaxed(student, teacher) + 1e-12).all()


def test_a_user_of_whom_nothing_counts_costs_nothing() -> None:
    student = torch.zeros(2, 4, requires_grad=True)
    nothing = torch.zeros(2, 4, dtype=torch.bool)
    losses: list[Tensor] = [
        ranking.ranking(student, student, k=2, decay=1.0, discrepancy=1.0, where=nothing),
        ranking.relaxed_ranking(student, student, k=2, where=nothing),
    ]
    for loss in losses:
        assert loss.tolist() == [0, 0]
        assert not torch.autograd.grad(loss.sum(), student)[0].any()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shapes differ: student \(2, 3\), teacher \(2, 4\)"):
        ranking.relaxed_ranking(torch.zeros(2, 3), torch.zeros(2, 4), k=1)
    with pytest.raises(ValueError, match=r"expected k=0 > 0"):
        ranking.relaxed_ranking(torch.zeros(2, 3), torch.zeros(2, 3), k=0)
    with pytest.raises(ValueError, match=r"student \(2, 3, 4\): expected \(N, I\)"):
        ranking.relaxed_ranking(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4), k=1)
