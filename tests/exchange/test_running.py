"""Means that are taken as models come in: near the mean of all at once, whoever comes first."""

import random

import pytest
import torch

from fedkd.exchange.aggregation import average_models, bounded
from fedkd.exchange.aggregation.running import GROUP, RunningMean


def models(number, seed=0):
    draws = torch.Generator().manual_seed(seed)
    return [
        {
            "weight": torch.randn(3, 2, generator=draws) * 10.0 ** (k % 5),
            "running_var": torch.rand(4, generator=draws).half(),
            "num_batches_tracked": torch.tensor(k + 5),
        }
        for k in range(number)
    ]


def taken(clients, order, given, claims, counts, lost=()):
    running = RunningMean(clients)
    for client in order:
        if client in lost:
            running.leave(client)
        else:
            running.add(client, given[client], claims[client])
    return running.mean(counts)


@pytest.mark.parametrize("number", [1, 2, GROUP, GROUP + 1, 3 * GROUP + 7])
def test_it_is_the_mean_of_all_whoever_comes_first_and_whoever_is_lost(number):
    clients = [3 * place + 1 for place in range(number)]
    given = dict(zip(clients, models(number), strict=True))
    draws = random.Random(number)
    claims = {client: float(draws.randrange(1, 500)) for client in clients}
    lost = set(draws.sample(clients, number // 4))
    left = [client for client in clients if client not in lost]
    expected = average_models([given[c] for c in left], [claims[c] for c in left])
    counts = {client: claims[client] for client in left}
    first = taken(clients, clients, given, claims, counts, lost)
    shuffled = draws.sample(clients, number)
    second = taken(clients, shuffled, given, claims, counts, lost)
    for name, each in expected.items():
        assert first[name].dtype == each.dtype
        assert torch.allclose(first[name].double(), each.double(), rtol=2e-3 if
                              each.dtype == torch.float16 else 1e-6)  # fmt: skip
        assert torch.equal(first[name], second[name])


def test_a_claim_that_counts_for_less_is_the_heaviest_clients_alone():
    clients = list(range(2 * GROUP))
    given = dict(enumerate(models(len(clients))))
    claims = dict.fromkeys(clients, 10.0) | {GROUP + 5: 1e6}
    cut = bounded(torch.tensor([claims[c] for c in clients])).tolist()
    assert cut[GROUP + 5] < 1e6
    expected = average_models([given[c] for c in clients], cut)
    found = taken(clients, clients, given, claims, dict(zip(clients, cut, strict=True)))
    assert torch.allclose(found["weight"], expected["weight"], rtol=1e-5)
    with pytest.raises(ValueError, match=r"clients \[7\] were averaged already"):
        taken(clients, clients, given, claims, claims | {7: 5.0})
