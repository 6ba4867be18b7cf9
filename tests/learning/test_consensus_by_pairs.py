"""The consensus by pairs of classes, beside the least-squares problem as it is written down."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedkd.learning.consensus import average_probabilities
from fedkd.learning.consensus_by_pairs import by_pairs, pair_weights, saturated

few = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(seed: int, rows: int = 3) -> tuple[Tensor, Tensor, float]:
    """Logits (K, N, C), counts (K, C) of which half are 0, and a weight, all of random size."""
    draws = generator(seed)
    teachers, classes = (int(torch.randint(1, top, (), generator=draws)) for top in (5, 7))
    counts = torch.randint(1, 200, (teachers, classes), generator=draws)
    counts *= torch.rand(teachers, classes, generator=draws) < 0.5
    logits = 3 * torch.randn(teachers, rows, classes, generator=draws).double()
    return logits, counts, 10 ** float(3 * torch.rand((), generator=draws) - 3)


def fitted(logits: Tensor, counts: Tensor, absolute: float) -> Tensor:
    """One row of logits (K, C) -> (C,): every term of the sum as a row of a least-squares system.

    Of the solutions that of least norm, which is 0 in classes that no term has.
    """
    classes = counts.shape[1]
    rows, targets = [], []
    for teacher, n in zip(logits.tolist(), counts.tolist(), strict=True):
        for i in range(classes):
            row = np.zeros(classes)
            row[i] = math.sqrt(absolute * n[i])
            rows.append(row)
            targets.append(math.sqrt(absolute * n[i]) * teacher[i])
            for j in range(i):
                if n[i] and n[j]:
                    scale = math.sqrt(1 / (1 / n[i] + 1 / n[j]))
                    row = np.zeros(classes)
                    row[i], row[j] = scale, -scale
                    rows.append(row)
                    targets.append(scale * (teacher[i] - teacher[j]))
    return torch.from_numpy(np.linalg.lstsq(np.array(rows), np.array(targets), rcond=1e-12)[0])


@few
@given(seeds)
def test_the_consensus_is_the_least_squares_fit_to_every_term(seed: int) -> None:
    logits, counts, absolute = drawn(seed)
    seen = counts.sum(dim=0) > 0
    found = by_pairs(logits, counts, absolute=absolute, own_error=0)
    for row in range(logits.shape[1]):
        expected = fitted(logits[:, row], counts, absolute)
        torch.testing.assert_close(found[row][seen], expected[seen], rtol=1e-6, atol=1e-6)


@few
@given(seeds, st.floats(0.0, 2.0))
def test_an_own_error_is_added_to_the_variance_of_each_class(seed: int, own_error: float) -> None:
    logits, counts, absolute = drawn(seed)
    worth = [[1 / (1 / n + own_error) if n else 0.0 for n in row] for row in counts.tolist()]
    torch.testing.assert_close(saturated(counts, own_error), torch.tensor(worth).double())
    found = by_pairs(logits, counts, absolute=absolute, own_error=own_error)
    seen = counts.sum(dim=0) > 0
    expected = fitted(logits[:, 0], torch.tensor(worth).double(), absolute)
    torch.testing.assert_close(found[0][seen], expected[seen], rtol=1e-6, atol=1e-6)


@few
@given(seeds)
def test_weights_add_up_to_the_identity_where_somebody_has_seen_the_class(seed: int) -> None:
    _, counts, absolute = drawn(seed)
    weights = pair_weights(counts, absolute=absolute, own_error=0)
    assert weights.dtype == torch.float64
    seen = (counts.sum(dim=0) > 0).double()
    torch.testing.assert_close(weights.sum(dim=0), torch.diag(seen), rtol=1e-9, atol=1e-9)
    for matrix, own in zip(weights, counts, strict=True):
        assert not matrix[:, own == 0].any()  # what it says of others' classes is not looked at
        assert not matrix[seen == 0].any()


@few
@given(seeds)
def test_the_names_of_teachers_and_classes_do_not_matter(seed: int) -> None:
    logits, counts, absolute = drawn(seed)
    found = by_pairs(logits, counts, absolute=absolute, own_error=0)
    teachers, classes = (torch.randperm(size, generator=generator(seed)) for size in counts.shape)
    shuffled = by_pairs(logits[teachers], counts[teachers], absolute=absolute, own_error=0)
    torch.testing.assert_close(shuffled, found)
    renamed = by_pairs(logits[:, :, classes], counts[:, classes], absolute=absolute, own_error=0)
    torch.testing.assert_close(renamed, found[:, classes])


@few
@given(seeds, st.floats(0.5, 100.0))
def test_it_is_linear_and_counts_matter_by_their_ratios(seed: int, factor: float) -> None:
    logits, counts, absolute = drawn(seed)
    found = by_pairs(logits, counts, absolute=absolute, own_error=0)
    torch.testing.assert_close(
        by_pairs(factor * logits, counts, absolute=absolute, own_error=0), factor * found
    )
    more = by_pairs(logits, 7 * counts, absolute=absolute, own_error=0)
    torch.testing.assert_close(more, found)


@few
@given(seeds)
def test_who_has_seen_all_is_heard_as_it_is(seed: int) -> None:
    logits, _, absolute = drawn(seed)
    counts = torch.randint(1, 99, (1, logits.shape[2]), generator=generator(seed))
    torch.testing.assert_close(
        by_pairs(logits[:1], counts, absolute=absolute, own_error=0), logits[0]
    )
    nobody = torch.zeros(len(logits) - 1, logits.shape[2]).long()  # these have no samples
    found = by_pairs(logits, torch.cat([counts, nobody]), absolute=absolute, own_error=0)
    torch.testing.assert_close(found, logits[0])


CHAIN = torch.tensor([[30, 20, 0, 0, 0], [0, 7, 90, 0, 0], [0, 0, 10, 25, 0], [40, 0, 0, 0, 60]])
"""No teacher has seen more than two classes, yet each class is joined to each."""


def test_along_a_chain_differences_come_back_whatever_each_adds_to_all_of_its_own() -> None:
    truth = 4 * torch.randn(6, 5, generator=generator(0)).double()
    levels = 10 * torch.randn(4, 6, 1, generator=generator(1)).double()
    noise = 50 * torch.randn(4, 6, 5, generator=generator(2)).double()
    logits = torch.where(CHAIN[:, None] > 0, truth + levels, noise)
    found = by_pairs(logits, CHAIN, absolute=1e-8, own_error=0)
    expected = truth - truth[:, :1]
    torch.testing.assert_close(found - found[:, :1], expected, rtol=0, atol=1e-4)


def test_classes_that_no_chain_joins_are_compared_by_the_logits_as_they_are() -> None:
    counts = torch.tensor([[10, 10, 0, 0], [0, 0, 10, 10]])
    logits = torch.tensor([[[3.0, 1.0, 9.0, 9.0]], [[9.0, 9.0, 4.0, -2.0]]])
    torch.testing.assert_close(
        by_pairs(logits, counts, absolute=0.01, own_error=0), torch.tensor([[3.0, 1.0, 4.0, -2.0]])
    )


def gaussians(counts: Tensor, *, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs of Gaussian classes: true log likelihoods (N, C), teachers' logits (K, N, C), labels.

    A teacher has the log likelihoods of its own classes, up to what it adds to all of one input's,
    and is loud and wrong about others.
    """
    draws, classes = generator(seed), counts.shape[1]
    centres = 2 * torch.randn(classes, 3, generator=draws).double()
    y = torch.randint(classes, (3000,), generator=draws)
    x = centres[y] + torch.randn(3000, 3, generator=draws).double()
    likelihoods = -torch.cdist(x, centres).square() / 2
    levels = 5 * torch.randn(len(counts), 3000, 1, generator=draws).double()
    wrong = 3 * torch.randn(len(counts), 3000, classes, generator=draws).double()
    logits = torch.where(counts[:, None] > 0, likelihoods, wrong) + levels
    return likelihoods, logits, y


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_where_a_chain_joins_all_classes_it_is_as_good_as_bayes_and_a_mean_is_not(
    seed: int,
) -> None:
    likelihoods, logits, y = gaussians(CHAIN, seed=seed)

    def accuracy(scores: Tensor) -> float:
        return float((scores.argmax(dim=1) == y).double().mean())

    best = accuracy(likelihoods)
    assert accuracy(by_pairs(logits, CHAIN, absolute=1e-6, own_error=0)) == pytest.approx(
        best, abs=0.002
    )
    assert accuracy(average_probabilities(logits)) < best - 0.15
    # The same from teachers of whom some have seen more.
    overlapping = CHAIN + torch.tensor([[0, 0, 5, 0, 0], [9, 0, 0, 8, 0], [0] * 5, [0] * 5])
    likelihoods, logits, y = gaussians(overlapping, seed=seed)
    found = by_pairs(logits, overlapping, absolute=1e-6, own_error=0)
    assert accuracy(found) == pytest.approx(accuracy(likelihoods), abs=0.002)


def test_a_class_that_nobody_has_seen_gets_the_lowest_logit_of_its_row() -> None:
    logits = torch.tensor([[[2.0, 99.0, -1.0], [-3.0, -99.0, 5.0]]])
    found = by_pairs(logits, torch.tensor([[4, 0, 4]]), absolute=0.01, own_error=0)
    torch.testing.assert_close(found, torch.tensor([[2.0, -1.0, -1.0], [-3.0, -3.0, 5.0]]))
    assert found.dtype == torch.float32
    # Noise in counts may leave none: then nothing is known, and that is said in finite numbers.
    nothing = by_pairs(logits, torch.zeros(1, 3).long(), absolute=0.01, own_error=0)
    assert nothing.tolist() == [[0.0] * 3] * 2


def test_what_makes_no_sense_is_refused() -> None:
    logits, counts = torch.zeros(2, 4, 3), torch.tensor([[1, 0, 2], [3, 4, 0]])
    with pytest.raises(ValueError, match=r"Expected counts >= 0 .*, got -1 and 0\.01"):
        by_pairs(logits, counts - 1, absolute=0.01, own_error=0)
    for absolute in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"absolute > 0, got 0 and {absolute:g}"):
            pair_weights(counts, absolute=absolute, own_error=0)
    with pytest.raises(ValueError, match=r"own_error >= 0, got -1\.$"):
        pair_weights(counts, absolute=0.01, own_error=-1.0)
    with pytest.raises(ValueError, match=r"counts \(3, 2\): expected \(2, 3\)"):
        by_pairs(logits, counts.T, absolute=0.01, own_error=0)
