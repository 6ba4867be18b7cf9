import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedkd.exchange.aggregation import (
    average_models,
    bounded,
    by_class_shares,
    entropy_reduction,
    mean,
    mean_by_class,
)

client_counts = st.lists(st.integers(0, 10**9), min_size=1, max_size=6).filter(any)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def models(number: int, seed: int) -> list[dict[str, Tensor]]:
    draws = generator(seed)
    return [
        {
            "weight": torch.randn(3, 4, generator=draws) * 10.0**k,
            "running_var": torch.rand(4, generator=draws).half(),
            "precise": torch.randn((), generator=draws).double(),
            "num_batches_tracked": torch.randint(100, (), generator=draws),
        }
        for k in range(number)
    ]


def entropy(probabilities: Tensor) -> Tensor:
    return torch.special.entr(probabilities).sum(dim=1)


@settings(deadline=None)
@given(counts=client_counts, seed=st.integers(0, 99))
def test_models_are_averaged_by_example_count(counts: list[int], seed: int) -> None:
    clients = models(len(counts), seed)
    averaged = average_models(clients, counts)
    assert set(averaged) == set(clients[0])
    for name in ("weight", "running_var", "precise"):
        oracle = np.average(
            np.stack([client[name].double().numpy() for client in clients]), axis=0, weights=counts
        )
        assert averaged[name].dtype == clients[0][name].dtype
        expected = torch.from_numpy(np.asarray(oracle))
        torch.testing.assert_close(averaged[name], expected.to(averaged[name].dtype))


def test_integers_are_the_first_models_and_a_copy() -> None:
    clients = models(3, 0)
    averaged = average_models(clients, [1, 2, 3])
    number = clients[0]["num_batches_tracked"]
    assert torch.equal(averaged["num_batches_tracked"], number)
    number += 1
    assert not torch.equal(averaged["num_batches_tracked"], number)


def test_one_model_or_equal_models_average_to_themselves_bitwise() -> None:
    [client] = models(1, 0)
    for clients, counts in (([client], [7]), ([client] * 3, [1, 1, 2])):
        averaged = average_models(clients, counts)
        assert all(torch.equal(averaged[name], value) for name, value in client.items())


def test_a_client_without_examples_does_not_count() -> None:
    clients = models(2, 0)
    averaged = average_models(clients, [3, 0])
    assert torch.equal(averaged["weight"], clients[0]["weight"])


@pytest.mark.parametrize(
    ("number", "counts"), [(0, []), (2, [1]), (1, [1, 2]), (2, [0, 0]), (2, [3, -1]), (1, [-1])]
)
def test_counts_that_do_not_fit_are_refused(number: int, counts: list[int]) -> None:
    expected = f"Expected a count >= 0 for each of {number} models, got "
    with pytest.raises(ValueError, match=expected):
        average_models(models(number, 0), counts)


shares = st.none() | st.floats(0.05, 1.0)


def most_of(share: float | None, clients: int) -> float:
    return (1 + 1 / clients) / 2 if share is None else max(share, 1 / clients)


@settings(deadline=None)
@given(counts=client_counts, share=shares)
def test_nobody_weighs_more_than_the_share_and_the_others_what_they_say(
    counts: list[int], share: float | None
) -> None:
    claimed = torch.tensor(counts)
    found = bounded(claimed, share)
    most = most_of(share, sum(count > 0 for count in counts))
    assert float(found.max()) <= most * float(found.sum()) * (1 + 1e-9)
    cut = found < claimed.double()
    assert bool((found <= claimed).all())
    # Who is cut gets all that the share allows, and would have had more.
    torch.testing.assert_close(found[cut], torch.full_like(found[cut], most * float(found.sum())))
    assert cut.any() or float(claimed.max()) <= most * float(claimed.sum()) * (1 + 1e-9)


@settings(deadline=None)
@given(
    honest=st.lists(st.integers(1, 10**6), min_size=1, max_size=5),
    share=st.floats(0.05, 0.95),
    boasts=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_how_far_a_claim_goes_beyond_the_share_changes_nothing(
    honest: list[int], share: float, boasts: tuple[int, int]
) -> None:
    one, other = (bounded(torch.tensor([*honest, 10**8 * 10**boast]), share) for boast in boasts)
    torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


def test_the_default_is_half_way_from_a_fair_share_to_all() -> None:
    for clients, most in ((2, 3 / 4), (3, 2 / 3), (10, 0.55)):
        found = bounded(torch.tensor([10**9, *[50] * (clients - 1)]))
        assert float(found[0] / found.sum()) == pytest.approx(most)
    assert torch.equal(bounded(torch.tensor([10**9])), torch.tensor([1e9]).double())
    # Of the two, each is three quarters of nothing else: neither is above it.
    assert torch.equal(bounded(torch.tensor([3, 1])), torch.tensor([3, 1]).double())


def test_a_claim_by_class_shrinks_in_all_classes_alike() -> None:
    claimed = torch.tensor([[0, 600, 300], [50, 0, 0], [30, 20, 0]])
    found = bounded(claimed, 0.5)
    assert found.tolist() == [
        [0, pytest.approx(200 / 3), pytest.approx(100 / 3)],
        [50, 0, 0],
        [30, 20, 0],
    ]
    # One that alone holds a class keeps it.
    assert bounded(torch.tensor([[9, 0], [0, 9]]), 0.5).tolist() == [[9, 0], [0, 9]]
    assert bounded(torch.zeros(2, 3, dtype=torch.int64)).tolist() == [[0, 0, 0]] * 2


def test_shares_of_a_class_add_up_where_less_than_one_sample_is_counted() -> None:
    counts = torch.tensor([[0.25, 0.0], [0.25, 3.0]]).double()
    means = torch.tensor([[[2.0], [9.0]], [[4.0], [5.0]]])
    assert mean_by_class(means, counts).tolist() == [[3.0], [5.0]]


knowledge = st.builds(
    lambda k, n, c, seed: torch.randn(k, n, c, generator=generator(seed)),
    st.integers(1, 5),
    st.integers(1, 6),
    st.integers(2, 5),
    st.integers(0, 99),
)


@settings(deadline=None)
@given(logits=knowledge, half=st.booleans())
def test_the_mean_is_over_clients_and_in_single_precision(logits: Tensor, half: bool) -> None:
    given_logits = logits.half() if half else logits
    found = mean(given_logits)
    assert found.dtype == torch.float32
    oracle = given_logits.double().numpy().sum(axis=0) / len(logits)
    torch.testing.assert_close(found.double(), torch.from_numpy(oracle), rtol=1e-5, atol=1e-6)


def test_era_by_hand() -> None:
    two = torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]]])  # mean 0.7, 0.3
    for temperature in (0.1, 1.0, 5.0):
        sure = 1 / (1 + np.exp(-0.4 / temperature))
        expected = torch.tensor([[sure, 1 - sure]], dtype=torch.float32)
        torch.testing.assert_close(entropy_reduction(two, temperature=temperature), expected)


@settings(max_examples=60, deadline=None)
@given(logits=knowledge, low=st.floats(0.02, 0.9), step=st.floats(1.1, 10))
def test_era_sharpens_the_more_the_lower_the_temperature(
    logits: Tensor, low: float, step: float
) -> None:
    probabilities = logits.softmax(dim=2)
    middle = mean(probabilities)
    sharp, softer = (entropy_reduction(probabilities, temperature=t) for t in (low, low * step))
    for result in (sharp, softer):
        torch.testing.assert_close(result.sum(dim=1), torch.ones(len(result)))
        assert torch.equal(result.argmax(dim=1), middle.argmax(dim=1))
    assert bool((entropy(sharp) <= entropy(softer) + 1e-5).all())
    # The order of the clients says nothing.
    torch.testing.assert_close(entropy_reduction(probabilities.flip(0), temperature=low), sharp)


def test_era_ends_in_the_winner_or_in_indifference() -> None:
    probabilities = torch.tensor([[[0.5, 0.3, 0.2]], [[0.1, 0.6, 0.3]]])  # mean 0.3, 0.45, 0.25
    winner = entropy_reduction(probabilities, temperature=1e-3)
    torch.testing.assert_close(winner, torch.tensor([[0.0, 1.0, 0.0]]))
    assert bool((entropy(winner) < entropy(mean(probabilities))).all())
    flat = entropy_reduction(probabilities, temperature=1e6)
    torch.testing.assert_close(flat, torch.full((1, 3), 1 / 3))


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_era_needs_a_positive_temperature(temperature: float) -> None:
    with pytest.raises(ValueError, match=f"Expected temperature={temperature} > 0"):
        entropy_reduction(torch.ones(1, 1, 2) / 2, temperature=temperature)


@given(clients=st.integers(1, 4), classes=st.integers(1, 4), seed=st.integers(0, 99))
def test_the_mean_by_class_is_that_of_all_samples_together(
    clients: int, classes: int, seed: int
) -> None:
    draws = generator(seed)
    y = [torch.randint(classes, (n + 1,), generator=draws) for n in range(clients)]
    features = [torch.randn(len(labels), 3, generator=draws) for labels in y]
    counts = torch.stack([torch.bincount(labels, minlength=classes) for labels in y])
    means = torch.full((clients, classes, 3), 7.0)  # of a class without a sample: anything
    for k, (labels, rows) in enumerate(zip(y, features, strict=True)):
        for c in set(labels.tolist()):
            means[k, c] = rows[labels == c].mean(dim=0)
    found = mean_by_class(means, counts)
    pooled_y, pooled = torch.cat(y), torch.cat(features)
    for c in range(classes):
        mine = pooled[pooled_y == c]
        torch.testing.assert_close(found[c], mine.mean(dim=0) if len(mine) else torch.zeros(3))


@given(clients=st.integers(1, 4), classes=st.integers(1, 4), seed=st.integers(0, 99))
def test_a_client_counts_for_a_class_by_its_share_of_the_samples(
    clients: int, classes: int, seed: int
) -> None:
    draws = generator(seed)
    said = torch.rand(clients, 3, classes, generator=draws).add(0.01).softmax(dim=2)
    counts = torch.randint(0, 5, (clients, classes), generator=draws)
    counts[0, 0] += 1
    found = by_class_shares(said, counts)
    for n in range(3):
        row = []
        for c in range(classes):
            held = [int(count) for count in counts[:, c]]
            total = sum(h * float(said[k, n, c]) for k, h in enumerate(held))
            row.append(total / sum(held) if sum(held) else 0.0)
        expected = torch.tensor([value / sum(row) for value in row])
        torch.testing.assert_close(found[n], expected)


def test_of_classes_that_nobody_holds_alone_nothing_is_said() -> None:
    found = by_class_shares(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[3, 0]]))
    assert torch.equal(found, torch.zeros(1, 2))
