import copy
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from clusters import CLASSES, generator, net, rows, state, unchanged
from torch import Tensor

from fedkd.config import Optimisation
from fedkd.knowledge import label
from fedkd.learning import consensus
from fedkd.learning.data_free import co_boosting
from fedkd.learning.data_free.synthesis import Synthetic
from fedkd.learning.ensemble import Ensemble

KD = partial(label.kd, temperature=4.0)
HOW = Optimisation(epochs=3, batch_size=4, learning_rate=0.05, schedule="cosine")


def slope_by_differences(teachers: list[Tensor], weights: list[float], y: list[int]) -> list[int]:
    """Signs of the derivatives of the mean cross-entropy in each weight, by central differences."""

    def loss(w: list[float]) -> float:
        total = 0.0
        for n, target in enumerate(y):
            mixed = [
                sum(a * t[n, c].item() for a, t in zip(w, teachers, strict=True)) / sum(w)
                for c in range(CLASSES)
            ]
            total += math.log(sum(map(math.exp, mixed))) - mixed[target]
        return total / len(y)

    signs = []
    for k in range(len(weights)):
        up, down = list(weights), list(weights)
        up[k] += 1e-5
        down[k] -= 1e-5
        signs.append(1 if loss(up) > loss(down) else -1)
    return signs


def test_weights_take_signed_steps_down_the_cross_entropy_and_stay_in_0_and_1() -> None:
    logits = 2 * torch.randn(3, 10, CLASSES, generator=generator(1)).double()
    y = torch.randint(CLASSES, (10,), generator=generator(2))
    start = torch.tensor([0.4, 0.97, 0.02]).double()
    found = co_boosting.reweighed(start, logits, y, 0.05, 4, generator(3))
    want = start.tolist()
    for batch in torch.split(torch.randperm(10, generator=generator(3)), 4):
        signs = slope_by_differences(list(logits[:, batch]), want, y[batch].tolist())
        want = [min(max(w - 0.05 * s, 0.0), 1.0) for w, s in zip(want, signs, strict=True)]
    assert found.tolist() == pytest.approx(want)
    assert torch.equal(start, torch.tensor([0.4, 0.97, 0.02]).double())


def test_who_is_right_gains_and_somebody_always_keeps_a_weight() -> None:
    y = torch.arange(12) % CLASSES
    right = 3 * F.one_hot(y, CLASSES).float()
    weights = torch.full((2,), 0.5)
    for _ in range(60):
        both = torch.stack([right, -right])
        weights = co_boosting.reweighed(weights, both, y, 0.01, 12, generator())
    assert weights.tolist() == [1.0, 0.0]
    alone = torch.full((1,), 0.004)
    for seed in range(5):  # its gradient is a rounding error, of either sign
        alone = co_boosting.reweighed(alone, right[None], y, 0.01, 5, generator(seed))
        assert alone > 0


def test_samples_move_by_the_sign_of_a_random_direction_of_the_answer() -> None:
    teachers, x = [net(1), net(2)], rows(5).x
    before = x.clone()
    with Ensemble(teachers) as ensemble:
        ensemble.average = partial(consensus.weighted, weights=torch.tensor([0.2, 0.6]))
        found = co_boosting.perturbed(ensemble, x, 0.1, generator(4))
    u = 2 * torch.rand(5, CLASSES, generator=generator(4)) - 1
    leaf = x.clone().requires_grad_()
    mixed = 0.25 * teachers[0](leaf) + 0.75 * teachers[1](leaf)
    ((mixed / 4).softmax(dim=1) * u).sum().backward()
    assert leaf.grad is not None
    torch.testing.assert_close(found, x + 0.1 * leaf.grad.sign())
    assert not found.requires_grad
    assert torch.equal(x, before)
    with Ensemble(teachers) as ensemble:
        again = co_boosting.perturbed(ensemble, x, 0.1, generator(5))
    assert not torch.equal(found, again)


def test_it_equals_the_textbook_loop() -> None:
    student, teachers = net(5), [net(1), net(2)]
    plain, before = copy.deepcopy(student), [state(teacher) for teacher in teachers]
    made = [rows(6, seed=seed) for seed in (1, 2, 3)]
    told: list[float] = []
    seen: list[Tensor] = []

    def make(epoch: int) -> Synthetic:
        seen.append(ensemble.answer(made[0].x))
        return Synthetic(made[epoch - 1].x, made[epoch - 1].y, ())

    with Ensemble(teachers) as ensemble:
        pool = co_boosting.train(
            student,
            ensemble,
            make,
            KD,
            HOW,
            generator,
            perturbation=0.1,
            weight_step=0.2,
            weight_step_decay=0.5,
            on_epoch=lambda _epoch, loss: told.append(loss),
        )
    weights = torch.tensor([0.5, 0.5])
    optimiser = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=3)
    plain.train()
    for epoch in (1, 2, 3):
        draws = generator(epoch)
        answers = torch.stack([teacher(made[0].x) for teacher in teachers])
        torch.testing.assert_close(seen[epoch - 1], consensus.weighted(answers, weights))
        if epoch > 1:
            x = torch.cat([each.x for each in made[: epoch - 1]])
            y = torch.cat([each.y for each in made[: epoch - 1]])
            logits = torch.stack([teacher(x).detach() for teacher in teachers])
            rate = 0.2 * 0.5 ** (epoch - 1)
            weights = co_boosting.reweighed(weights, logits, y, rate, 4, draws)
        x, losses = torch.cat([each.x for each in made[:epoch]]), 0.0
        for batch in torch.split(torch.randperm(len(x), generator=draws), 4):
            u = 2 * torch.rand(len(batch), CLASSES, generator=draws) - 1
            leaf = x[batch].requires_grad_()
            logits = torch.stack([teacher(leaf) for teacher in teachers])
            loss = ((consensus.weighted(logits, weights) / 4).softmax(dim=1) * u).sum()
            hard = leaf.detach() + 0.1 * torch.autograd.grad(loss, leaf)[0].sign()
            answer = torch.stack([teacher(hard).detach() for teacher in teachers])
            value = KD(plain(hard), consensus.weighted(answer, weights)).mean()
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            losses += value.item() * len(batch) / len(x)
        schedule.step()
        assert told[epoch - 1] == pytest.approx(losses, rel=1e-4)
    assert torch.equal(pool.x, torch.cat([each.x for each in made]))
    for found, want in zip(state(student).values(), state(plain).values(), strict=True):
        torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)
    assert weights.tolist() != [0.5, 0.5]
    assert all(unchanged(t, b) for t, b in zip(teachers, before, strict=True))
    assert not student.training
