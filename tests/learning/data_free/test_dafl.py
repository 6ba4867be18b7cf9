import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from clusters import generator, state, unchanged
from torch import Tensor, nn

from fedkd import models
from fedkd.config import ModelSpec, Optimisation
from fedkd.errors import FederationError
from fedkd.knowledge import label
from fedkd.learning.data_free import adi, dafl, objectives, synthesis
from fedkd.learning.data_free.synthesis import Views, synthesise
from fedkd.learning.ensemble import Ensemble
from fedkd.learning.teacher_statistics import observe

SHAPE, CLASSES, LATENT = (1, 8, 8), 3, 8
HOW = Optimisation(epochs=2, batch_size=12, learning_rate=0.05)
KD = partial(label.kd, temperature=1.0)


def cnn(seed: int) -> nn.Module:
    """A classifier whose BatchNorm has seen something."""
    spec = ModelSpec(name="dense-cnn")
    model = models.build(spec, shape=SHAPE, classes=CLASSES, generator=generator(seed))
    model(torch.rand(20, *SHAPE, generator=generator(seed)))
    return model


def maker() -> nn.Module:
    return models.build_generator(SHAPE, latent=LATENT, width=4, generator=generator(7))


def run(
    student: nn.Module,
    teachers: list[nn.Module],
    net: nn.Module,
    objective: synthesis.Objective = objectives.dafl,
    *,
    threads: int = 1,
) -> list[float]:
    with Ensemble(teachers, threads=threads) as ensemble:
        return dafl.train(
            student,
            ensemble,
            net,
            objective,
            KD,
            HOW,
            generator(4),
            classes=CLASSES,
            steps=3,
            latent=LATENT,
            learning_rate=0.01,
        )


def test_it_equals_the_textbook_loop() -> None:
    student, net, teacher = cnn(1), maker(), cnn(2)
    plain, plain_net = copy.deepcopy(student), copy.deepcopy(net)
    losses = run(student, [teacher], net)
    teacher.eval()
    up = torch.optim.Adam(plain_net.parameters(), lr=0.01)
    down = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9)
    draws, expected = generator(4), []
    for _ in range(2):
        torch.randperm(36, generator=draws)
        total = 0.0
        for _ in range(3):
            z = torch.randn(12, LATENT, generator=draws)
            torch.randint(CLASSES, (12,), generator=draws)
            x = plain_net(z)
            shown = observe(teacher, x)
            mean = shown.logits.softmax(1).mean(0)
            aim = F.cross_entropy(shown.logits, shown.logits.argmax(1))
            aim = aim + 0.1 * shown.activation.mean() + 5 * (mean * mean.log()).sum()
            up.zero_grad()
            aim.backward()
            up.step()
            told = shown.logits.detach().softmax(1)
            answer = plain(x.detach()).log_softmax(1)
            loss = F.kl_div(answer, told, reduction="batchmean")
            down.zero_grad()
            loss.backward()
            down.step()
            total += loss.item() / 3
        expected.append(total)
    assert losses == pytest.approx(expected, rel=1e-3)
    # The generator's weights may differ: what BatchNorm cancels has no gradient, and Adam makes
    # whole steps of its rounding errors.
    for found, want in zip(state(student).values(), state(plain).values(), strict=True):
        torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-4)
    assert not any(module.training for module in student.modules())


def test_the_objective_sees_the_student_in_evaluation_mode_and_does_not_move_it() -> None:
    student, seen = cnn(1), []
    norm = student.get_submodule("norm1")

    def objective(views: Views) -> Tensor:
        seen.append((student.training, norm.get_buffer("num_batches_tracked").item()))
        return views.x.mean() + views.student.square().mean()

    run(student, [cnn(2)], maker(), objective)
    assert seen == [(False, 1 + step) for step in range(6)]  # once a step, for the student's own


def test_teachers_stay_as_they_were_bit_for_bit() -> None:
    teachers = [cnn(2), cnn(3)]
    before = [state(teacher) for teacher in teachers]
    run(cnn(1), teachers, maker())
    assert all(unchanged(t, b) for t, b in zip(teachers, before, strict=True))
    assert all(p.grad is None for teacher in teachers for p in teacher.parameters())


def test_threads_change_nothing_not_a_bit() -> None:
    students = [cnn(1), cnn(1)]
    losses = [
        run(student, [cnn(2), cnn(3)], maker(), threads=threads)
        for threads, student in enumerate(students, start=1)
    ]
    assert losses[0] == losses[1]
    assert unchanged(students[0], state(students[1]))


def test_divergence_is_one_clear_error() -> None:
    with pytest.raises(FederationError, match="synthesis diverged: the objective is nan"):
        run(cnn(1), [cnn(2)], maker(), lambda views: views.x.sum() * float("nan"))


def test_pixels_are_optimised_each_by_itself() -> None:
    target = torch.rand(4, *SHAPE, generator=generator(5))

    def objective(views: Views) -> Tensor:
        return (views.x - target).square().sum()

    with Ensemble([cnn(2)]) as ensemble:
        batch = synthesise(
            adi.Pixels(SHAPE),
            ensemble,
            cnn(1),
            objective,
            classes=CLASSES,
            steps=150,
            batch_size=4,
            latent=64,
            learning_rate=0.2,
            rng=generator(4),
        )
    assert batch.x.shape == (4, *SHAPE)
    assert (batch.x - target).abs().max() < 0.05
    z = torch.zeros(2, 64, requires_grad=True)
    adi.Pixels(SHAPE)(z)[1, 0, 0, 3].backward()
    assert z.grad is not None
    assert z.grad.nonzero().tolist() == [[1, 3]]


def test_each_epoch_adds_a_batch_to_the_pool_and_passes_over_all_of_it() -> None:
    student, plain, teacher = cnn(1), cnn(1), cnn(2)
    made = [torch.rand(6, *SHAPE, generator=generator(number)) for number in range(2)]
    y = torch.arange(6) % CLASSES
    told: list[tuple[int, float]] = []
    with Ensemble([teacher]) as ensemble:
        pool = synthesis.learn_from_pool(
            student,
            ensemble,
            lambda epoch: synthesis.Synthetic(made[epoch - 1], y, ()),
            KD,
            HOW,
            generator,
            on_epoch=lambda epoch, loss: told.append((epoch, loss)),
        )
        answers = [ensemble.answer(x) for x in made]
    assert torch.equal(pool.x, torch.cat(made))
    assert torch.equal(pool.y, torch.cat([y, y]))
    optimiser = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9)
    plain.train()
    for epoch, loss in told:
        x, answer = torch.cat(made[:epoch]), torch.cat(answers[:epoch])
        order = torch.randperm(len(x), generator=generator(epoch))
        value = KD(plain(x[order]), answer[order]).mean()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        assert value.item() == pytest.approx(loss, rel=1e-4)
    for found, want in zip(state(student).values(), state(plain).values(), strict=True):
        torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)
