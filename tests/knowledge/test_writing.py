"""Divergences for models that write: the formula's value and gradient, and their limits."""

from functools import partial

import label_oracles as oracles
import numpy as np
import pytest
import torch
from agreement import Array, Loss, Oracle, assert_agrees, fresh
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedkd.knowledge import label, writing


def reverse(student: Array, teacher: Array, *, alpha: float) -> Array:
    return oracles.skewed(teacher, student, 2.0, alpha)


PAIRS: dict[str, tuple[Loss, Oracle]] = {
    "reverse": (partial(writing.reverse_kl, temperature=2.0), partial(reverse, alpha=0.0)),
    "skew-reverse": (
        partial(writing.reverse_kl, temperature=2.0, alpha=0.3),
        partial(reverse, alpha=0.3),
    ),
    "skew": (
        partial(writing.skew_kl, temperature=0.7, alpha=0.2),
        partial(oracles.skewed, temperature=0.7, alpha=0.2),
    ),
    "jsd": (
        partial(label.jsd, temperature=2.0, beta=0.1),
        partial(oracles.jsd, temperature=2.0, beta=0.1),
    ),
    "top-k": (
        partial(writing.top_k, temperature=2.0, k=2),
        partial(oracles.top_k, temperature=2.0, k=2),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
@settings(max_examples=5, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_value_and_gradient_are_the_formula_s(name: str, seed: int) -> None:
    assert_agrees(*PAIRS[name], [(3, 5), (3, 5)], seed)


@pytest.mark.parametrize("name", [*PAIRS, "universal"])
def test_places_that_do_not_count_are_zero_and_tell_nothing_even_nan(name: str) -> None:
    loss = writing.universal if name == "universal" else PAIRS[name][0]
    student, teacher = fresh([(2, 3, 5), (2, 3, 5)], 4)
    where = torch.tensor([[True, True, False], [True, False, False]])
    whole = loss(student, teacher)
    values = loss(student, teacher, where=where)
    torch.testing.assert_close(values, torch.where(where, whole, 0.0))
    torch.testing.assert_close(loss(student, student), torch.zeros_like(whole))
    assert (whole > 1e-3).all()


def test_the_ends_of_skews_and_shares_are_the_plain_divergences() -> None:
    student, teacher = (each.detach() for each in fresh([(4, 6), (4, 6)], 1))
    kd = label.kd(student, teacher, temperature=1.5)
    torch.testing.assert_close(writing.skew_kl(student, teacher, temperature=1.5, alpha=0.0), kd)
    other = label.kd(teacher, student, temperature=1.5)
    torch.testing.assert_close(writing.reverse_kl(student, teacher, temperature=1.5), other)
    for beta, limit in ((1e-6, kd), (1 - 1e-6, other)):
        near = label.jsd(student, teacher, temperature=1.5, beta=beta) / min(beta, 1 - beta)
        torch.testing.assert_close(near, limit, rtol=1e-3, atol=1e-4)


APART = {("kd", "student"), ("top-k", "student"), ("reverse", "teacher")}
"""What is infinitely far from a distribution that rules a class out."""


@pytest.mark.parametrize(
    ("name", "whose"),
    [
        (name, whose)
        for name in (*PAIRS, "kd")
        for whose in ("student", "teacher", "both")
        if (name, whose) not in APART
    ],
)
def test_a_class_that_is_ruled_out_is_one_of_next_to_no_probability(name: str, whose: str) -> None:
    loss = partial(label.kd, temperature=2.0) if name == "kd" else PAIRS[name][0]
    logits = dict(zip(("student", "teacher"), fresh([(3, 5), (3, 5)], 3), strict=True))
    out = torch.tensor([[0, 1, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 0, 0, 0]]).bool()
    for who in logits if whose == "both" else (whose,):
        logits[who] = logits[who].detach().masked_fill(out, -torch.inf)
    student, teacher = (each.detach() for each in logits.values())
    values = loss(student.requires_grad_(), teacher)
    near = [each.detach().clamp_min(-300.0) for each in (student, teacher)]
    torch.testing.assert_close(values, loss(*near))
    values.sum().backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), k=st.integers(1, 8))
def test_classes_put_together_tell_no_more_than_all(seed: int, k: int) -> None:
    student, teacher = (each.detach() for each in fresh([(4, 6), (4, 6)], seed))
    coarse = writing.top_k(student, teacher, temperature=1.0, k=k)
    whole = label.kd(student, teacher, temperature=1.0)
    assert (coarse <= whole + 1e-9).all()
    if k >= 5:
        torch.testing.assert_close(coarse, whole)


def test_unlike_classes_and_places_are_compared_by_rank_and_number() -> None:
    student, teacher = (each.detach() for each in fresh([(2, 4, 3), (2, 3, 5)], 2))
    found = writing.universal(student, teacher)
    for n in range(2):
        for place in range(4):
            want = 0.0
            if place < 3:
                p, q = (
                    np.sort(each[n, place].softmax(dim=0).numpy())[::-1]
                    for each in (student, teacher)
                )
                want = sum(abs((p[i] if i < 3 else 0.0) - q[i]) for i in range(5))
            assert found[n, place].item() == pytest.approx(want)
    with pytest.raises(ValueError, match=r"student \(2, 3\), teacher \(3, 3\): expected"):
        writing.universal(torch.zeros(2, 3), torch.zeros(3, 3))


@pytest.mark.parametrize("alpha", [-0.1, 1.0])
def test_a_share_must_be_one(alpha: float) -> None:
    two = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=f"expected alpha={alpha}"):
        writing.skew_kl(two, two, temperature=1.0, alpha=alpha)
    with pytest.raises(ValueError, match=r"expected beta=1.5 < 1"):
        label.jsd(two, two, temperature=1.0, beta=1.5)


def test_what_a_sure_teacher_costs_is_bounded_by_its_share() -> None:
    sure = 1e4 * torch.eye(2)
    wrong: Tensor = sure.flip(0)
    assert writing.skew_kl(wrong, sure, temperature=1.0, alpha=0.1) == pytest.approx(
        [np.log(10)] * 2, abs=1e-5
    )
