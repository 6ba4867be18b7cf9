"""Answers in a bounded form and back: equal ones return, a loud one is no more than a sure one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedkd.tasks.base import Likelihood
from fedkd.tasks.bounded import OF_PROBABILITIES
from fedkd.tasks.likelihoods.bernoulli import BERNOULLI
from fedkd.tasks.likelihoods.categorical import CATEGORICAL
from fedkd.tasks.likelihoods.multinomial import MULTINOMIAL, SEEN
from fedkd.tasks.likelihoods.tokens import TOKENS

LIKELIHOODS = {"classes": CATEGORICAL, "labels": BERNOULLI, "items": MULTINOMIAL, "tokens": TOKENS}


def through(likelihood: Likelihood, said: Tensor, chosen: int = 0) -> Tensor:
    """What comes back if a rule took the answers of one client."""
    form = likelihood.bounded
    assert form is not None
    bounded = form.into(said)
    assert ((bounded >= 0) & (bounded <= 1)).all()
    return form.back(bounded[chosen], said)


@pytest.mark.parametrize("likelihood", LIKELIHOODS.values(), ids=LIKELIHOODS)
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 999), clients=st.integers(1, 5), size=st.floats(0.1, 3))
def test_equal_answers_come_back(
    likelihood: Likelihood, seed: int, clients: int, size: float
) -> None:
    one = size * torch.randn(4, 6, generator=torch.Generator().manual_seed(seed)).half()
    found = through(likelihood, one.expand(clients, 4, 6))
    torch.testing.assert_close(found, one.float(), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("likelihood", [CATEGORICAL, BERNOULLI, MULTINOMIAL])
def test_the_loudest_of_float16_is_finite_and_no_louder_than_the_others(
    likelihood: Likelihood,
) -> None:
    loud = torch.tensor([[65504.0, -65504.0, 0.0]]).half()
    said = torch.stack([torch.randn(1, 3).half(), torch.randn(1, 3).half(), loud])
    found = through(likelihood, said, 2)
    assert torch.isfinite(found).all()
    assert found.argmax() == 0
    assert found.abs().max() < 100


def test_where_most_say_nothing_nothing_is_said() -> None:
    said = torch.randn(5, 3, 4)
    said[:3, 0] = 0.0
    said[:2, 1] = 0.0
    found = through(TOKENS, said, 4)
    assert found[0].eq(0).all()
    assert found[1].ne(0).any()
    silent = torch.softmax(said, dim=-1)
    silent[:3, 0] = 0.0
    back = OF_PROBABILITIES.back(silent[4], silent)
    assert back[0].eq(0).all()
    torch.testing.assert_close(back[1:].sum(dim=-1), torch.ones(2))


def test_an_item_that_most_were_shown_stays_one() -> None:
    said = torch.randn(3, 2, 4)
    said[:2, 0, 1] = SEEN
    said[0, 1, 2] = SEEN
    found = through(MULTINOMIAL, said, 2)
    assert found[0, 1] == SEEN
    assert found[1, 2] > SEEN / 2


def test_probabilities_of_a_sum_above_one_are_scaled_down() -> None:
    found = OF_PROBABILITIES.into(torch.tensor([[[1.0, 1.0, 0.0]], [[0.2, 0.3, 0.0]]]))
    torch.testing.assert_close(found[:, 0], torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.0]]))
