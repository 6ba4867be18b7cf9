import copy
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from clusters import generator, net, normed, rows, state
from torch import Tensor

from fedkd.config import Optimisation
from fedkd.data.types import Dataset, Samples
from fedkd.errors import ConfigError
from fedkd.learning import augment, supervised
from fedkd.learning.ways import mean_teacher

HOW = Optimisation(epochs=2, batch_size=16, learning_rate=0.05)


def same(x: Tensor, _generator: torch.Generator) -> Tensor:
    return x


def steady(weight: float) -> partial[float]:
    return partial(mean_teacher.rising, weight=weight, epochs=0)


@pytest.mark.parametrize("loose", [0, 30])
def test_it_equals_the_textbook_loop(loose: int) -> None:
    """With unlabelled inputs in the second half of each batch, or without."""
    samples, student, plain = rows(40), net(1), net(1)
    mean = copy.deepcopy(plain)
    batches: list[Tensor] = []

    def recorded(x: Tensor, _generator: torch.Generator) -> Tensor:
        batches.append(x)
        return x

    found = mean_teacher.train(
        student,
        samples,
        HOW,
        generator(3),
        unlabelled=rows(loose, seed=7).x if loose else None,
        view=recorded,
        weight=steady(5.0),
        decay=0.7,
    )
    optimiser = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9)
    for step, x in enumerate(batches[::2], start=1):
        own = x[: len(x) // 2] if loose else x
        y = samples.y[(samples.x[:, None] == own[None]).all(dim=2).float().argmax(dim=0)]
        answer = plain(x)
        apart = F.mse_loss(answer.softmax(1), mean(x).softmax(1).detach())
        optimiser.zero_grad()
        (F.cross_entropy(answer[: len(y)], y) + 5 * apart).backward()
        optimiser.step()
        now = {1: 1 / 2, 2: 2 / 3}.get(step, 0.7)  # the start weighs as much as a step
        for old, new in zip(mean.parameters(), plain.parameters(), strict=True):
            old.data = now * old.data + (1 - now) * new.data
    assert len(batches) == 2 * 2 * 3
    for one, other in ((student, plain), (found, mean)):
        for mine, want in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(mine, want, rtol=1e-4, atol=1e-5)
        assert not any(module.training for module in one.modules())


def test_without_weight_the_student_learns_from_labels_alone() -> None:
    student, plain = normed(1), normed(1)
    teacher = mean_teacher.train(
        student, rows(), HOW, generator(3), view=same, weight=steady(0.0), decay=0.5
    )
    supervised.train(plain, rows(), HOW, generator(3))
    for found, want in zip(state(student).values(), state(plain).values(), strict=True):
        torch.testing.assert_close(found, want)
    assert not torch.equal(
        teacher.state_dict()["1.running_mean"], plain.get_buffer("1.running_mean")
    )
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_student_and_teacher_see_views_of_their_own_of_labelled_and_unlabelled() -> None:
    seen: list[Tensor] = []

    def marked(x: Tensor, generator: torch.Generator) -> Tensor:
        other = augment.noisy(x, generator, std=1e-3)
        seen.append(other)
        return other

    samples, loose = rows(32), 100 + rows(24, seed=5).x
    mean_teacher.train(
        net(),
        samples,
        HOW,
        generator(),
        unlabelled=loose,
        view=marked,
        weight=steady(1.0),
        decay=0.9,
    )
    assert len(seen) == 2 * 2 * 2  # two views of two batches in two epochs
    for theirs, ours in zip(seen[::2], seen[1::2], strict=True):
        assert theirs.shape == ours.shape == (32, 6)
        assert not torch.equal(theirs, ours)
        torch.testing.assert_close(theirs, ours, rtol=0, atol=0.02)
        assert (ours[:16] < 50).all()
        assert (ours[16:] > 50).all()
    visited = torch.cat([each[16:] for each in seen[::2]])
    near = (visited[:, None] - loose[None]).abs().amax(dim=2).argmin(dim=1)
    assert sorted(near[:24].tolist()) == list(range(24))  # each once before any again


def test_the_weight_rises_along_a_bell() -> None:
    weight = partial(mean_teacher.rising, weight=10.0, epochs=4.0)
    assert weight(0.0) == pytest.approx(10 * math.exp(-5))
    assert weight(2.0) == pytest.approx(10 * math.exp(-1.25))
    assert weight(4.0) == weight(9.5) == 10.0


def test_labels_are_kept_of_some_and_all_inputs_stay() -> None:
    samples = rows(50)
    dataset = Dataset("clusters", samples, rows(20), 3, ("a", "b", "c"))
    some = mean_teacher.share(
        dataset, 0, mean_teacher.MeanTeacher(labelled=12), generator(1)
    ).student
    assert len(some.train) == 12
    assert some.test is dataset.test
    places = [(samples.x == x).all(dim=1).nonzero().item() for x in some.train.x]
    assert places == sorted(set(places))
    assert torch.equal(samples.y[places], some.train.y)
    every = mean_teacher.share(dataset, 0, mean_teacher.MeanTeacher(), generator(1)).student
    assert isinstance(every.train, Samples)
    assert torch.equal(every.train.x, samples.x)
    with pytest.raises(ConfigError, match=r"way\.labelled is 99: expected at most the 50"):
        mean_teacher.share(dataset, 0, mean_teacher.MeanTeacher(labelled=99), generator(1))
