"""Agreement: whoever lies stands out, whoever is honest does not, by an independent oracle too."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedkd.exchange.aggregation.agreement import (
    CONTRADICTS,
    alike,
    beyond,
    contradiction,
    kept,
    no_longer,
    quieted,
    uncontradicted,
)
from fedkd.exchange.aggregation.agreement import agreement as agree


def agreement(said: Tensor) -> Tensor:
    return agree(alike(said))


def honest(clients: int, *, inputs: int = 40, classes: int = 5, seed: int = 0) -> Tensor:
    """Probabilities of clients that learned from one world, each with its own skew and noise."""
    draws = torch.Generator().manual_seed(seed)
    truth = torch.nn.functional.one_hot(torch.arange(inputs) % classes, classes) * 4.0
    skew = torch.randn(clients, 1, classes, generator=draws)
    noise = torch.randn(clients, inputs, classes, generator=draws)
    return torch.softmax(truth + skew + noise, dim=-1)


def lies(said: Tensor) -> dict[str, Tensor]:
    """What a client may send in place of `said` (N, C)."""
    loud = torch.zeros_like(said)
    loud[:, 0] = 1
    return {
        "one loud answer": loud,
        "turned round": torch.softmax(-10 * said.log(), dim=-1),
        "labels flipped": said.flip(-1),
        "no answer": torch.zeros_like(said),
    }


def by_hand(said: Tensor) -> list[float]:
    """The same by loops over clients and the vectors themselves."""
    vectors = [(each - each.mean(dim=0)).flatten().double() for each in said]
    units = [v / v.norm() if v.norm() > 1e-12 else v * 0 for v in vectors]
    count = len(units)
    found = []
    for k in range(count):
        cosines = sorted((float(units[k] @ units[j]) for j in range(count) if j != k), reverse=True)
        found.append(cosines[(count - 1) // 2 - 1])
    heard = kept(torch.tensor(found)).tolist()
    for _ in range(10):
        if max(found) <= 0:
            break
        for k in range(count):
            rest = sum(units[j] for j in range(count) if heard[j] and j != k)
            length = float(torch.as_tensor(rest).norm()) if not isinstance(rest, int) else 0.0
            found[k] = float(units[k] @ rest) / length if length > 1e-6 else 0.0
        now = kept(torch.tensor(found)).tolist()
        if now == heard:
            break
        heard = now
    return found


@settings(max_examples=25, deadline=None)
@given(clients=st.integers(3, 9), seed=st.integers(0, 10**6), hostile=st.integers(0, 4))
def test_it_is_what_the_vectors_themselves_say(clients: int, seed: int, hostile: int) -> None:
    said = honest(clients, seed=seed)
    for client in range(min(hostile, (clients - 1) // 2)):
        said[client] = list(lies(said[client]).values())[client % 3]
    expected = torch.tensor(by_hand(said), dtype=torch.float64).clamp(-1, 1)
    torch.testing.assert_close(agreement(said), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("lie", ["one loud answer", "turned round", "labels flipped", "no answer"])
@pytest.mark.parametrize(("clients", "hostile"), [(3, 1), (4, 1), (5, 2), (10, 4)])
def test_any_minority_that_tells_one_lie_is_left_out_and_nobody_else(
    lie: str, clients: int, hostile: int
) -> None:
    said = honest(clients)
    said[:hostile] = lies(said[0])[lie]  # they collude: all say the very same
    assert kept(agreement(said)).tolist() == [False] * hostile + [True] * (clients - hostile)


@settings(max_examples=25, deadline=None)
@given(clients=st.integers(3, 12), seed=st.integers(0, 10**6))
def test_where_nobody_lies_nobody_is_left_out(clients: int, seed: int) -> None:
    assert kept(agreement(honest(clients, seed=seed))).all()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), order=st.permutations(range(6)))
def test_the_order_of_clients_and_the_size_of_answers_do_not_count(
    seed: int, order: list[int]
) -> None:
    said = honest(6, seed=seed)
    found = agreement(said)
    torch.testing.assert_close(agreement(said[order]), found[order])
    sizes = torch.tensor([1.0, 1e-3, 1e4, 2.0, 5.0, 0.1]).view(6, 1, 1)
    torch.testing.assert_close(agreement(said * sizes), found, atol=1e-6, rtol=1e-6)


def test_at_most_a_minority_is_left_out() -> None:
    found = torch.tensor([1.0, 1.0, 0.9, 0.02, 0.01, -0.5], dtype=torch.float64)
    assert (~kept(found)).nonzero().flatten().tolist() == [4, 5]  # 3 below, and 3 of 6 are no less
    few = torch.tensor([0.3, 0.0, 0.0, 0.0, -0.1])
    assert kept(few).all()  # most agree with nobody: nothing can be told


def test_of_two_nobody_can_be_told_to_lie() -> None:
    assert agreement(honest(2)).tolist() == [0, 0]


def test_what_is_not_finite_agrees_with_nobody() -> None:
    said = honest(5)
    said[1, 3, 2] = torch.nan
    assert agreement(said)[1] == 0
    assert kept(agreement(said)).tolist() == [True, False, True, True, True]


def test_nobody_is_more_than_three_times_as_loud_as_the_median() -> None:
    answers = torch.randn(5, 8, 3, generator=torch.Generator().manual_seed(0))
    loud = answers.clone()
    loud[2] *= 1000
    lengths = quieted(loud).flatten(1).norm(dim=1)
    assert lengths[2] == pytest.approx(3 * float(loud.flatten(1).norm(dim=1).median()), rel=1e-5)
    assert torch.equal(quieted(answers), answers)
    two = torch.stack([answers[0], 1e-6 * answers[1]])
    assert torch.equal(quieted(two), two)  # whoever whispers does not silence the other one
    assert no_longer(torch.tensor([1.0, 2.0, 0.0, 60.0])).tolist() == pytest.approx([1, 1, 1, 0.05])


def reordered(said: Tensor) -> Tensor:
    """What FDLA says in place of (N, C): the likeliest class gets the least, all others more."""
    values, order = said.sort(dim=-1, descending=True)
    return torch.empty_like(said).scatter(-1, order, values.roll(1, dims=-1))


def everywhere(said: Tensor) -> Tensor:
    return torch.ones(said.shape[:-1], dtype=torch.bool)


def contradiction_by_hand(said: Tensor, heard: list[bool], told: Tensor) -> list[float]:
    """The same by loops over inputs: how often it meets, less how often dealt answers would."""
    found = []
    for k in range(len(said)):
        others = [said[j].double() for j in range(len(said)) if heard[j] and j != k]
        places = [n for n in range(said.shape[1]) if told[k, n]]
        called = {n: int(torch.stack(others).sum(dim=0)[n].argmax()) for n in places}

        def share(n: int, c: int, k: int = k) -> float:
            least = [i for i, p in enumerate(said[k, n].tolist()) if p == said[k, n].min()]
            return (c in least) / len(least)

        met = sum(share(n, called[n]) for n in places) / max(1, len(places))
        dealt = [share(n, called[m]) for n in places for m in places]
        found.append(met - sum(dealt) / max(1, len(dealt)))
    return found


@settings(max_examples=15, deadline=None)
@given(clients=st.integers(3, 6), seed=st.integers(0, 10**6), ties=st.booleans())
def test_contradiction_is_what_loops_over_inputs_say(clients: int, seed: int, ties: bool) -> None:
    said = honest(clients, inputs=9, seed=seed)
    said = (said * 4).round() / 4 if ties else said
    said[0] = reordered(said[0])
    told, heard = everywhere(said), [True] * clients
    told[1, ::2], heard[-1] = False, False
    expected = torch.tensor(contradiction_by_hand(said, heard, told), dtype=torch.float64)
    torch.testing.assert_close(contradiction(said, torch.tensor(heard), told), expected)


@pytest.mark.parametrize(("clients", "hostile"), [(3, 1), (5, 2), (10, 4)])
@pytest.mark.parametrize("classes", [3, 5, 10])
def test_who_denies_what_it_knows_is_left_out_though_it_agrees_in_part(
    clients: int, hostile: int, classes: int
) -> None:
    said = honest(clients, inputs=20 * classes, classes=classes)
    for client in range(hostile):
        said[client] = reordered(said[client])
    heard, told = torch.ones(clients, dtype=torch.bool), everywhere(said)
    _, left = uncontradicted(said, heard, told)
    assert left.tolist() == [False] * hostile + [True] * (clients - hostile)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), missing=st.integers(1, 4))
def test_who_never_saw_a_class_contradicts_nobody(seed: int, missing: int) -> None:
    said = honest(6, inputs=200, seed=seed)
    said[0, :, :missing] *= 1e-6  # it rules these out, also where they are right
    found, left = uncontradicted(said, torch.ones(6, dtype=torch.bool), everywhere(said))
    assert left.all()
    assert found[0] < CONTRADICTS / 2


@pytest.mark.parametrize("victim", [0, 4])
def test_colluders_cannot_have_an_honest_client_left_out_by_calling_what_it_rules_out(
    victim: int,
) -> None:
    said = honest(10, inputs=200, seed=1).softmax(dim=-1)  # none is certain, as in early rounds
    heard = torch.ones(10, dtype=torch.bool)
    told = everywhere(said)
    assert uncontradicted(said, heard, told)[1].all()
    for liar in (7, 8, 9):  # each rules out the class after the one that it calls
        called = said[victim, :120].argmin(dim=-1)
        rows = torch.full((120, 5), 0.01).scatter(1, called[:, None], 0.97)
        said[liar, :120] = rows.scatter(1, (called[:, None] + 1) % 5, 0.0)
    found, left = uncontradicted(said, heard, told)
    assert found[victim] > CONTRADICTS
    assert left[victim]


def test_no_more_than_a_minority_is_left_out_for_both_reasons() -> None:
    said = honest(5)
    for client in range(3):
        said[client] = reordered(said[client])
    heard = torch.tensor([True, True, True, True, False])  # one does not agree: one more may go
    found, left = uncontradicted(said, heard, everywhere(said))
    assert int((~left).sum()) <= 2
    assert not left[4]
    assert (found[~left & heard] > CONTRADICTS).all()


def test_who_says_nothing_contradicts_nobody() -> None:
    said = honest(4)
    told = everywhere(said)
    told[2] = False
    assert contradiction(said, torch.ones(4, dtype=torch.bool), told)[2] == 0


@settings(max_examples=15, deadline=None)
@given(clients=st.integers(3, 7), inputs=st.integers(1, 30), seed=st.integers(0, 10**6))
def test_what_is_learned_alone_is_what_loops_over_inputs_say(
    clients: int, inputs: int, seed: int
) -> None:
    draws = torch.Generator().manual_seed(seed)
    learned = torch.randn(clients, 4, inputs, 2, generator=draws)
    learned[0, :, 0] *= 30
    expected = []
    shares = [[float(w[:, i].norm() / w.norm()) for i in range(inputs)] for w in learned]
    for own, way in zip(shares, learned, strict=True):
        middle = [sorted(each[i] for each in shares)[(clients - 1) // 2] for i in range(inputs)]
        over = [max(0.0, share - 3 * m) for share, m in zip(own, middle, strict=True)]
        expected.append(sum(x * x for x in over) * float(way.norm()) ** 2)
    found = beyond(learned)
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=0.01
    )
    torch.testing.assert_close(beyond(7 * learned), 49 * found, rtol=1e-5, atol=1e-6)
