import pytest
import torch
import torch.nn.functional as F
from clusters import generator, net, normed, rows, state, unchanged

from fedkd.config import Optimisation
from fedkd.learning import supervised
from fedkd.learning.ways import born_again

HOW = Optimisation(epochs=2, batch_size=16, learning_rate=0.05)


@pytest.mark.parametrize("parents", [1, 3])
def test_a_generation_equals_the_textbook_loop(parents: int) -> None:
    samples, child, plain = rows(40), net(5), net(5)
    family = [net(seed).eval() for seed in range(parents)]
    losses = born_again.next_generation(
        child, family, samples, HOW, generator(3), labels=0.6, weight=0.5, temperature=2.0
    )
    told = torch.stack([parent(samples.x).softmax(dim=1) for parent in family]).mean(dim=0)
    soft = (told.detach().log() / 2).softmax(dim=1)
    optimiser = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9)
    shuffles, expected = generator(3), []
    for _ in range(2):
        total = 0.0
        for index in torch.randperm(40, generator=shuffles).split(16):
            answer = plain(samples.x[index])
            near = F.kl_div((answer / 2).log_softmax(1), soft[index], reduction="batchmean")
            loss = 0.6 * F.cross_entropy(answer, samples.y[index]) + 0.5 * 4 * near
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(index)
        expected.append(total / 40)
    assert losses == pytest.approx(expected, rel=1e-4)
    for found, want in zip(child.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)
    assert not any(module.training for module in child.modules())


def test_without_parents_weight_a_child_learns_from_labels_alone() -> None:
    child, plain = net(5), net(5)
    born_again.next_generation(child, [net(1)], rows(), HOW, generator(3), weight=0.0)
    supervised.train(plain, rows(), HOW, generator(3))
    for found, want in zip(child.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, want)


def test_parents_stay_as_they_were_bit_for_bit() -> None:
    parent = normed(1)  # in training mode, which must not matter
    before = state(parent)
    born_again.next_generation(normed(2), [parent], rows(), HOW, generator())
    assert unchanged(parent, before)
    assert parent.training
    assert all(parameter.grad is None for parameter in parent.parameters())


def test_an_orphan_is_refused() -> None:
    with pytest.raises(ValueError, match="0 parents: expected at least 1"):
        born_again.next_generation(net(), [], rows(), HOW, generator())
