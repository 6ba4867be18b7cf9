import copy

import pytest
import torch
import torch.nn.functional as F
from clusters import CLASSES, generator, net, normed, rows, state
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedkd.config import Optimisation
from fedkd.errors import FederationError
from fedkd.learning import evaluate, supervised
from fedkd.learning.ways import mutual

HOW = Optimisation(epochs=2, batch_size=16, learning_rate=0.05)


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) in nats, per row of probabilities."""
    return (p * (p.log() - q.log())).sum(dim=1)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), others=st.integers(1, 4), temperature=st.floats(0.5, 5))
def test_the_loss_is_the_formula_s_and_its_gradient_stays_at_home(
    seed: int, others: int, temperature: float
) -> None:
    draws = generator(seed)
    logits = torch.randn(1 + others, 5, CLASSES, generator=draws, dtype=torch.float64)
    y = torch.randint(CLASSES, (5,), generator=draws)
    student, *partners = (each.clone().requires_grad_() for each in logits)
    found = mutual.mutual(student, y, partners, temperature=temperature, weight=0.7)
    soft = (logits / temperature).softmax(dim=2)
    expected = F.nll_loss(logits[0].log_softmax(dim=1), y, reduction="none")
    for partner in soft[1:]:
        expected += 0.7 * temperature**2 * kl(partner, soft[0]) / others
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert student.grad is not None
    assert all(partner.grad is None for partner in partners)


def test_peers_take_turns_with_fresh_answers() -> None:
    """The paper's algorithm, with one forward pass for each thing that is asked for."""
    peers = [net(1), net(2, 5), net(3, 4, 4)]
    plain = [copy.deepcopy(peer) for peer in peers]
    samples = rows(40)
    losses = mutual.train(peers, samples, HOW, generator(3))
    optimisers = [torch.optim.SGD(p.parameters(), lr=0.05, momentum=0.9) for p in plain]
    shuffles, expected = generator(3), []
    for _ in range(2):
        total = 0.0
        for index in torch.randperm(40, generator=shuffles).split(16):
            x, y = samples.x[index], samples.y[index]
            for i, optimiser in enumerate(optimisers):
                own = plain[i](x)
                loss = F.cross_entropy(own, y)
                for other in plain[:i] + plain[i + 1 :]:
                    p = other(x).detach().softmax(dim=1)
                    loss = loss + kl(p, own.softmax(dim=1)).mean() / 2
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total += loss.item() * len(index) / 3
        expected.append(total / 40)
    assert losses == pytest.approx(expected, rel=1e-4)
    for peer, twin in zip(peers, plain, strict=True):
        for found, want in zip(peer.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)


def test_without_weight_everyone_learns_alone_and_batchnorm_sees_each_batch_once() -> None:
    peers = [normed(1), normed(2)]
    alone = [copy.deepcopy(peer) for peer in peers]
    mutual.train(peers, rows(), HOW, generator(3), weight=0.0)
    for peer, twin in zip(peers, alone, strict=True):
        supervised.train(twin, rows(), HOW, generator(3))
        assert peer.state_dict().keys() == twin.state_dict().keys()
        for found, want in zip(state(peer).values(), state(twin).values(), strict=True):
            torch.testing.assert_close(found, want)
        assert not any(module.training for module in peer.modules())
        assert all(m.track_running_stats for m in peer.modules() if isinstance(m, nn.BatchNorm1d))


def test_partners_pull_answers_together() -> None:
    def gap(weight: float) -> float:
        peers, overlapping = [net(1), net(2, 5)], rows(spread=4.0)
        mutual.train(peers, overlapping, HOW, generator(), weight=weight)
        first, second = (evaluate.answers(peer, overlapping.x).softmax(dim=1) for peer in peers)
        return (first - second).abs().mean().item()

    assert gap(3.0) < 0.7 * gap(0.0)


def test_what_does_not_go_is_said() -> None:
    peer = net()
    for peers in ([], [peer], [peer, peer]):
        with pytest.raises(ValueError, match=f"{len(peers)} peers: expected at least 2"):
            mutual.train(peers, rows(), HOW, generator())
    wild = HOW.model_copy(update={"learning_rate": 1e30, "epochs": 9})
    with pytest.raises(FederationError, match="training diverged"):
        mutual.train([net(), net(1)], rows(), wild, generator())
