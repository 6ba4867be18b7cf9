"""Calls: nobody calls a class far oftener than the others do, and whoever does not is untouched."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedkd.exchange.aggregation.calls import no_oftener


def drawn(clients: int, inputs: int, classes: int, seed: int) -> Tensor:
    """Logits of clients that know the class of input n, n modulo the classes, fairly well."""
    draws = torch.Generator().manual_seed(seed)
    truth = 3.0 * torch.nn.functional.one_hot(torch.arange(inputs) % classes, classes)
    return truth + torch.randn(clients, inputs, classes, generator=draws)


def by_hand(logits: Tensor) -> list[list[bool]]:
    """Who is heard where, by loops over clients, classes and inputs."""
    given_, heard = logits.softmax(dim=-1).double(), []
    clients, inputs, classes = given_.shape
    for k in range(clients):
        own = [True] * inputs
        others = [j for j in range(clients) if j != k]
        for c in range(classes):
            often = sorted(float(given_[j, :, c].mean()) for j in others)
            usual = max(1 / classes, often[(len(others) - 1) // 2])
            called = [n for n in range(inputs) if int(given_[k, n].argmax()) == c]
            called.sort(key=lambda n, c=c, others=others: -float(given_[others, n, c].sum()))
            for n in called[math.ceil(2 * usual * inputs) :]:
                own[n] = False
        heard.append(own)
    return heard


@settings(max_examples=15, deadline=None)
@given(clients=st.integers(3, 6), classes=st.integers(2, 5), seed=st.integers(0, 10**6))
def test_it_is_what_loops_say(clients: int, classes: int, seed: int) -> None:
    logits = drawn(clients, 24, classes, seed)
    logits[0, 6:, 0] += 9.0  # calls class 0 on most inputs
    found, unheard = no_oftener(logits, logits.softmax(dim=-1))
    heard = torch.tensor(by_hand(logits))
    torch.testing.assert_close(unheard, (~heard).double().mean(dim=1))
    assert torch.equal(found[heard], logits[heard])
    for k, n in (~heard).nonzero().tolist():
        torch.testing.assert_close(found[k, n], logits[heard[:, n], n].mean(dim=0))


def test_who_is_honest_in_part_is_heard_in_part_and_the_others_everywhere() -> None:
    logits = drawn(10, 200, 10, seed=1)
    logits[:3, torch.arange(200) % 4 > 0] = 9.0 * torch.eye(10)[0]  # the truth on each fourth
    found, unheard = no_oftener(logits, logits.softmax(dim=-1))
    assert unheard[:3].min() > 0.5
    assert unheard[3:].max() == 0

    def right(answers: Tensor) -> float:
        called = answers.mean(dim=0).argmax(dim=-1)
        return float((called == torch.arange(200) % 10).double().mean())

    assert right(logits) < 0.5
    assert right(found) > 0.8


def test_where_nobody_calls_too_often_answers_are_the_very_same() -> None:
    logits = drawn(5, 50, 5, seed=2).half()
    found, unheard = no_oftener(logits, logits.float().softmax(dim=-1))
    assert found is logits
    assert unheard.tolist() == [0] * 5
    two = logits[:2] + 50 * torch.eye(5)[0].half()
    assert no_oftener(two, two.float().softmax(dim=-1))[0] is two  # of two nothing is usual
