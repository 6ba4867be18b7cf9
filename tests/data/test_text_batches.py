"""Batches of like length: the same records, in another order."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from fedkd.data.texts.batches import by_length

LENGTH = 20


def texts(count, seed):
    draws = torch.Generator().manual_seed(seed)
    x = torch.randint(1, 9, (count, LENGTH), generator=draws)
    lengths = torch.randint(1, LENGTH, (count, 1), generator=draws)
    return x.masked_fill(torch.arange(LENGTH) >= lengths, 0), draws


@given(st.integers(1, 400), st.integers(1, 16), st.integers(0, 9))
def test_every_record_comes_once(count, size, seed):
    x, draws = texts(count, seed)
    order = torch.randperm(count, generator=draws)
    found = by_length(x, order, size, draws)
    assert found.sort().values.tolist() == list(range(count))


def test_batches_hold_less_padding_than_shuffled_ones_and_are_not_in_order():
    x, draws = texts(800, 0)
    order = torch.randperm(800, generator=draws)

    def longest(places):
        return (x[places].view(-1, 16, LENGTH) != 0).any(dim=1).sum(dim=1)

    before, after = longest(order), longest(by_length(x, order, 16, draws))
    assert after.sum() < 0.7 * before.sum()
    assert after.tolist() != sorted(after.tolist())
