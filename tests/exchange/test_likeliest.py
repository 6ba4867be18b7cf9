"""The likeliest classes of each place cross the wire, and come back as log-probabilities."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.errors import MessageError
from fedkd.exchange import likeliest
from fedkd.exchange.codec import decode, encode

SHAPE = (3, 4, 9)


def answers(seed: int) -> torch.Tensor:
    logits = 3 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    logits[1, 2:] = 0
    return logits


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), k=st.integers(2, 8))
def test_what_comes_back_is_a_distribution_whose_likeliest_are_those_that_were_sent(
    seed: int, k: int
) -> None:
    logits = answers(seed)
    sent = decode(encode(likeliest.sparse("a", logits, k)), likeliest.expected("a", SHAPE, k))
    back = likeliest.dense("a", sent, 9)
    said = (logits != 0).any(dim=-1)
    assert not back[~said].any()
    p, was = back[said].exp(), logits[said].softmax(dim=-1)
    torch.testing.assert_close(p.sum(dim=-1), torch.ones(len(p)), atol=5e-3, rtol=0)
    best = was.topk(k, dim=-1).indices
    torch.testing.assert_close(p.gather(-1, best), was.gather(-1, best), atol=2e-3, rtol=2e-2)
    others = p.scatter(-1, best, -1.0)
    for row, rest in zip(others, 1 - was.gather(-1, best).sum(dim=-1), strict=True):
        assert row[row >= 0] == pytest.approx(float(rest) / (9 - k), abs=5e-3)
    if k == 8:
        torch.testing.assert_close(p, was, atol=5e-3, rtol=0)


def test_what_a_stranger_sends_stays_finite_or_is_not_let_in() -> None:
    ids = torch.zeros(1, 1, 3, dtype=torch.int32)
    values = torch.tensor([[[-0.1, -0.2, -0.3]]], dtype=torch.float16)
    sent = decode(encode({"a/ids": ids, "a/values": values}), likeliest.expected("a", (1, 1, 9), 3))
    assert torch.isfinite(likeliest.dense("a", sent, 9)).all()
    for wrong in ({"a/ids": ids + 9, "a/values": values}, {"a/ids": ids, "a/values": values + 1}):
        with pytest.raises(MessageError, match="is not within"):
            decode(encode(wrong), likeliest.expected("a", (1, 1, 9), 3))
