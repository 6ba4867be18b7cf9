"""Rules for models against slow oracles on flat vectors, and against clients that lie."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedkd.exchange.aggregation import models

State = dict[str, Tensor]
Rule = Callable[[Sequence[State], int], State]
RULES: dict[str, Rule] = {
    "median": lambda given, _: models.median(given),
    "trimmed-mean": models.trimmed_mean,
    "geometric-median": lambda given, _: models.geometric_median(given),
    "multi-krum": models.multi_krum,
    "bulyan": models.bulyan,
    "centred-clipping": lambda given, _: models.centred_clipping(given),
    "neighbours": lambda given, liars: models.median(models.mixed(given, liars)),
}
rules = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
seeds = st.integers(0, 999)


def drawn(seed: int, clients: int) -> list[State]:
    draws = torch.Generator().manual_seed(seed)
    return [
        {
            "weight": torch.randn(3, 2, generator=draws),
            "bias": torch.randn(2, generator=draws).double(),
            "empty": torch.zeros(0),
            "scale": torch.randn((), generator=draws).half(),
            "seen": torch.randint(100, (), generator=draws),
            "on": torch.tensor([True, False]),
        }
        for _ in range(clients)
    ]


def flat(given: Sequence[State]) -> np.ndarray:
    rows = [
        torch.cat([each[name].double().flatten() for name in ("weight", "bias", "scale")])
        for each in given
    ]
    return torch.stack(rows).numpy()


def close(found: State, expected: np.ndarray) -> None:
    # "scale" is float16.
    np.testing.assert_allclose(flat([found])[0], expected, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(flat([found])[0][:-1], expected[:-1], rtol=1e-5, atol=1e-5)


def krum(points: np.ndarray, among: list[int], liars: int) -> list[int]:
    """The best first; of two that are each other's only neighbour who is nearer to all."""
    squares = ((points[:, None] - points) ** 2).sum(axis=2).round(9)
    near = max(1, len(among) - liars - 2)
    scores = {
        i: (sum(sorted(squares[i, j] for j in among if j != i)[:near]), squares[i].sum())
        for i in among
    }
    return sorted(among, key=scores.__getitem__)


@rules
@settings(deadline=None, max_examples=8)
@given(seed=seeds)
def test_the_order_of_clients_does_not_matter(rule: Rule, seed: int) -> None:
    given_ = drawn(seed, 7)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(seed)).tolist()
    torch.testing.assert_close(
        rule(given_, 1), rule([given_[k] for k in order], 1), rtol=1e-3, atol=1e-3
    )


@rules
def test_equal_models_are_what_comes_out(rule: Rule) -> None:
    [one] = drawn(3, 1)
    found = rule([one] * 7, 1)
    torch.testing.assert_close(found, one)
    assert {name: each.dtype for name, each in found.items()} == {
        name: each.dtype for name, each in one.items()
    }


@settings(deadline=None, max_examples=10)
@given(seed=seeds, clients=st.integers(3, 9))
def test_rules_by_parameter_are_those_of_numpy(seed: int, clients: int) -> None:
    given_, liars = drawn(seed, clients), (clients - 1) // 2
    rows = np.sort(flat(given_), axis=0)
    close(models.median(given_), np.median(rows, axis=0))
    close(models.trimmed_mean(given_, liars), rows[liars : clients - liars].mean(axis=0))
    whole = np.sort([int(each["seen"]) for each in given_])
    assert int(models.median(given_)["seen"]) == whole[(clients - 1) // 2]


@settings(deadline=None, max_examples=10)
@given(seed=seeds, clients=st.integers(3, 9))
def test_the_geometric_median_has_the_least_sum_of_distances(seed: int, clients: int) -> None:
    given_ = [{"weight": each["weight"].double()} for each in drawn(seed, clients)]
    points = torch.stack([each["weight"].flatten() for each in given_])
    found = models.geometric_median(given_)["weight"].flatten()
    steps = torch.randn(60, 6, generator=torch.Generator().manual_seed(seed)).double()
    for size in (1.0, 0.1, 1e-2, 1e-3):
        there = (found + size * steps)[:, None] - points
        least = 0.999 * (found - points).norm(dim=1).sum()
        assert (there.norm(dim=2).sum(dim=1) >= least).all()


@settings(deadline=None, max_examples=10)
@given(seed=seeds, liars=st.integers(0, 2), more=st.integers(0, 2))
def test_krum_and_bulyan_choose_as_published(seed: int, liars: int, more: int) -> None:
    given_ = drawn(seed, 2 * liars + 3 + more)
    points = flat(given_)
    best = krum(points, list(range(len(points))), liars)[: len(points) - liars - 2]
    close(models.multi_krum(given_, liars), points[best].mean(axis=0))

    given_ = drawn(seed, 4 * liars + 3 + more)
    points, left, chosen = flat(given_), list(range(4 * liars + 3 + more)), []
    while len(chosen) < len(points) - 2 * liars:
        chosen.append(krum(points, left, liars)[0])
        left.remove(chosen[-1])
    picked = points[chosen]
    away = np.abs(picked - np.median(picked, axis=0))
    order = away.argsort(axis=0, kind="stable")[: len(chosen) - 2 * liars]
    close(models.bulyan(given_, liars), np.take_along_axis(picked, order, axis=0).mean(axis=0))


@settings(deadline=None, max_examples=10)
@given(seed=seeds, clients=st.integers(3, 9))
def test_clipping_moves_by_steps_of_which_none_is_long(seed: int, clients: int) -> None:
    given_ = drawn(seed, clients)
    points = flat(given_)
    centre = np.median(points, axis=0)
    for _ in range(5):
        away = points - centre
        lengths = np.linalg.norm(away, axis=1)
        clipped = away * np.minimum(1, np.median(lengths) / np.maximum(lengths, 1e-12))[:, None]
        centre = centre + clipped.mean(axis=0)
    close(models.centred_clipping(given_), centre)


@settings(deadline=None, max_examples=10)
@given(seed=seeds, liars=st.integers(0, 3))
def test_neighbours_are_mixed_as_published(seed: int, liars: int) -> None:
    given_ = drawn(seed, 7)
    points = flat(given_)
    for own, found in zip(points, models.mixed(given_, liars), strict=True):
        near = np.argsort(((points - own) ** 2).sum(axis=1))[: 7 - liars]
        close(found, points[near].mean(axis=0))


@pytest.mark.parametrize("loud", [1.0, -10.0, 1e4, 1e30])
@pytest.mark.parametrize("together", [True, False])
@settings(deadline=None, max_examples=6)
@given(seed=seeds)
def test_fewer_than_half_do_not_decide(seed: int, loud: float, *, together: bool) -> None:
    """4 of 9; Multi-Krum stands 3 of 9, Bulyan 1 of 9."""
    honest = [{"w": each["weight"]} for each in drawn(seed, 9)]
    for name, rule in RULES.items():
        liars = {"multi-krum": 3, "bulyan": 1}.get(name, 4)
        lies = [{"w": loud * each["weight"]} for each in drawn(seed + 1, liars)]
        said = honest[: 9 - liars] + ([lies[0]] * liars if together else lies)
        centre = torch.stack([each["w"] for each in honest[: 9 - liars]]).mean(dim=0)
        radius = max(float((each["w"] - centre).norm()) for each in honest[: 9 - liars])
        found = rule(said, liars)["w"]
        assert float((found - centre).norm()) <= 2 * (9 - liars) / (9 - 2 * liars) * radius, name


@pytest.mark.parametrize(
    ("rule", "clients", "least"),
    [(models.trimmed_mean, 4, 5), (models.multi_krum, 6, 7), (models.bulyan, 10, 11)],
)
def test_too_few_clients_for_so_many_liars(rule: Rule, clients: int, least: int) -> None:
    with pytest.raises(
        ValueError, match=f"2 liars among {clients} clients: expected at least {least}"
    ):
        rule(drawn(1, clients), 2)


def test_distances_are_over_all_floating_parameters() -> None:
    given_ = drawn(1, 4)
    found = models.distances(given_, given_[0]).numpy()
    points = flat(given_)
    np.testing.assert_allclose(found, np.linalg.norm(points - points[0], axis=1))
