"""Rules for answers against slow oracles, and against clients that send whatever they like."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedkd.exchange.aggregation import answers, points

Rule = Callable[[Tensor, int], Tensor]
RULES: dict[str, Rule] = {
    "median": lambda said, _: answers.median(said),
    "trimmed-mean": answers.trimmed_mean,
    "geometric-median": lambda said, _: answers.geometric_median(said),
    "cronus": answers.cronus,
    "expguard": lambda said, _: answers.expguard(said)[0],
}
rules = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
seeds = st.integers(0, 999)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@rules
@settings(deadline=None, max_examples=15)
@given(seed=seeds, clients=st.integers(3, 8))
def test_the_order_of_clients_does_not_matter(rule: Rule, seed: int, clients: int) -> None:
    said = drawn(seed, clients, 3, 2, 4)
    order = torch.randperm(clients, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(rule(said, 1), rule(said[order], 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("clients", range(1, 13))
def test_rows_are_sorted_by_comparing_them_whole(clients: int) -> None:
    said = torch.randint(9, (clients, 40), generator=torch.Generator().manual_seed(clients))
    assert torch.equal(torch.stack(points.ordered(said)), said.sort(dim=0).values)


@rules
@pytest.mark.parametrize("clients", [1, 2, 3, 6])
def test_equal_answers_are_what_comes_out(rule: Rule, clients: int) -> None:
    said = drawn(1, 1, 4, 3).half().expand(clients, 4, 3)
    torch.testing.assert_close(rule(said, (clients - 1) // 2), said[0].float())


@settings(deadline=None, max_examples=20)
@given(seed=seeds, clients=st.integers(1, 9))
def test_medians_and_trimmed_means_are_those_of_numpy(seed: int, clients: int) -> None:
    said, cut = drawn(seed, clients, 3, 2), (clients - 1) // 2
    ordered = np.sort(said.numpy(), axis=0)
    trimmed = ordered[cut : clients - cut].mean(axis=0)
    torch.testing.assert_close(answers.median(said), torch.tensor(np.median(said.numpy(), axis=0)))
    torch.testing.assert_close(answers.trimmed_mean(said, cut), torch.tensor(trimmed))


@settings(deadline=None, max_examples=15)
@given(seed=seeds, clients=st.integers(3, 8))
def test_no_point_near_has_a_smaller_sum_of_distances(seed: int, clients: int) -> None:
    said = drawn(seed, clients, 1, 3).double()
    found = answers.geometric_median(said)[0]

    def total(points: Tensor) -> Tensor:
        return (points[:, None] - said[:, 0]).norm(dim=2).sum(dim=1)

    steps = torch.cat([s * drawn(seed + 1, 50, 3).double() for s in (1.0, 0.1, 1e-2, 1e-3)])
    # Weiszfeld's steps shorten where the answer is a client's own.
    assert (total(found + steps) >= 0.999 * total(found[None])).all()
    assert (total(said[:, 0]) >= 0.999 * total(found[None])).all()


@settings(deadline=None, max_examples=15)
@given(seed=seeds, clients=st.integers(3, 8))
def test_cronus_leaves_out_who_is_farthest_on_the_main_direction(seed: int, clients: int) -> None:
    said, liars = drawn(seed, clients, 2, 5).double(), (clients - 1) // 2
    for row in range(2):
        left = said[:, row].numpy()
        for _ in range(liars):
            around = left - left.mean(axis=0)
            along = np.abs(around @ np.linalg.svd(around)[2][0])
            left = np.delete(left, along.argmax(), axis=0)
        found = answers.cronus(said, liars)[row]
        torch.testing.assert_close(found, torch.tensor(left.mean(axis=0)))


def test_expguard_weighs_by_the_exponential_of_all_scores_so_far() -> None:
    said, past = drawn(5, 5, 4, 3).double(), torch.tensor([0.0, 0.3, 2.0, 0.0, 1.0])
    centre = answers.geometric_median(said)
    away = (said - centre).norm(dim=2).mean(dim=1).numpy()
    scores = away / np.median(away) + past.numpy()
    weights = np.exp(-3 * scores) / np.exp(-3 * scores).sum()
    found, total = answers.expguard(said, past)
    torch.testing.assert_close(total, torch.tensor(scores))
    expected = np.tensordot(weights, said.numpy(), axes=1)
    torch.testing.assert_close(found, torch.tensor(expected))
    assert answers.expguard(said)[0].ne(found).any()


@pytest.mark.parametrize("loud", [1.0, 50.0, 65504.0, 1e15])
@pytest.mark.parametrize("together", [True, False])
@settings(deadline=None, max_examples=8)
@given(seed=seeds, clients=st.integers(3, 10))
def test_fewer_than_half_do_not_decide(
    seed: int, clients: int, loud: float, *, together: bool
) -> None:
    liars = (clients - 1) // 2
    honest = drawn(seed, clients - liars, 3, 4)
    lies = loud * drawn(seed + 1, liars, 3, 4)
    said = torch.cat([honest, lies[:1].expand_as(lies) if together else lies])
    low, high = honest.amin(dim=0) - 1e-5, honest.amax(dim=0) + 1e-5
    for rule in ("median", "trimmed-mean"):
        found = RULES[rule](said, liars)
        assert (found >= low).all(), rule
        assert (found <= high).all(), rule
    centre = honest.mean(dim=0)
    radius = (honest - centre).norm(dim=2).amax(dim=0)
    bound = 2 * len(honest) / (len(honest) - liars) * radius
    assert ((answers.geometric_median(said) - centre).norm(dim=1) <= bound + 1e-4).all()
    # Who is not left out is no farther than who is honest would have to be.
    assert ((answers.cronus(said, liars) - centre).norm(dim=1) <= 10 * bound).all()


@settings(deadline=None, max_examples=15)
@given(seed=seeds, clients=st.integers(3, 10))
def test_expguard_hardly_hears_liars_among_probabilities(seed: int, clients: int) -> None:
    liars = max(1, clients // 5)
    honest = torch.softmax(drawn(seed, 1, 6, 4) + 0.3 * drawn(seed + 1, clients - liars, 6, 4), -1)
    lies = torch.zeros(liars, 6, 4)
    lies[..., 0] = 1.0
    weighed = answers.expguard(torch.cat([honest, lies]))[0]
    before = torch.cat([honest, lies]).mean(dim=0)
    aim = honest.mean(dim=0)
    assert (weighed - aim).norm() < 0.5 * (before - aim).norm()


@rules
def test_gradients_reach_the_answers_and_are_finite(rule: Rule) -> None:
    said = drawn(3, 5, 2, 3).requires_grad_()
    (slope,) = torch.autograd.grad(rule(said, 1).square().sum(), said)
    assert torch.isfinite(slope).all()
    assert slope.abs().sum() > 0


@rules
def test_a_rule_looks_at_answers_a_part_at_a_time(
    rule: Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = drawn(3, 5, 7, 2, 3)
    whole = rule(said, 2)
    monkeypatch.setattr(answers, "_PART", 64)
    torch.testing.assert_close(rule(said, 2), whole)


@pytest.mark.parametrize("rule", [answers.trimmed_mean, answers.cronus])
def test_nobody_would_be_left(rule: Rule) -> None:
    with pytest.raises(ValueError, match="2 liars among 4 clients: expected at least 5 clients"):
        rule(drawn(1, 4, 2, 2), 2)
