import threading
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedkd import models
from fedkd.config import ModelSpec, Optimisation
from fedkd.knowledge import label
from fedkd.learning import ensemble as multi_teacher
from fedkd.learning import evaluate
from fedkd.learning.ensemble import Ensemble
from fedkd.learning.teacher_statistics import Observation, observe

SHAPE = (1, 12, 12)
SPECS = (
    ModelSpec(name="dense-cnn"),
    ModelSpec(name="lenet5"),
    ModelSpec(name="resnet8", width=4),
    ModelSpec(name="resnet8", width=4, norm="group"),
    ModelSpec(name="mlp", hidden=[9]),
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def teachers() -> list[nn.Module]:
    """Unlike models whose BatchNorm statistics are not those of a fresh layer."""
    built = []
    for number, spec in enumerate(SPECS):
        model = models.build(spec, shape=SHAPE, classes=4, generator=generator(number))
        model(images(30, seed=number))
        built.append(model)
    return built


def images(rows: int, seed: int = 9) -> Tensor:
    return torch.rand(rows, *SHAPE, generator=generator(seed))


def mixture(shown: Observation) -> Tensor:
    """A scalar that depends on all that is shown, unlike for each teacher."""
    weights = torch.arange(1.0, 1 + len(shown.bn))
    return (
        (weights @ shown.logits.square().mean(dim=(1, 2)))
        + weights @ shown.bn
        + weights @ shown.activation.sum(dim=1)
    )


def stepped(threads: int) -> tuple[Observation, Tensor]:
    x = images(20).requires_grad_()
    with Ensemble(teachers(), threads=threads) as ensemble:
        shown = ensemble.observe(x)
        (slope,) = torch.autograd.grad(mixture(shown), x)
    return shown, slope


def test_threads_change_nothing_not_a_bit() -> None:
    one, one_slope = stepped(1)
    two, two_slope = stepped(2)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert torch.equal(one_slope, two_slope)
    answers = []
    for threads in (1, 2):
        with Ensemble(teachers(), threads=threads) as ensemble:
            answers.append(ensemble.logits(images(150)))
    assert torch.equal(*answers)


def test_it_equals_plain_autograd() -> None:
    x = images(20).requires_grad_()
    shown = Observation(
        *map(torch.stack, zip(*(observe(t.eval(), x) for t in teachers()), strict=True))
    )
    (slope,) = torch.autograd.grad(mixture(shown), x)
    found, found_slope = stepped(2)
    for mine, plain in zip(found, shown, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found_slope, slope, rtol=1e-4, atol=1e-5)
    assert slope.abs().max() > 0.1


def test_parts_that_are_not_asked_for_have_no_share_in_the_gradient() -> None:
    x = images(6).requires_grad_()
    with Ensemble([teachers()[4]]) as ensemble:  # no BatchNorm: bn does not depend on x
        (none,) = torch.autograd.grad(ensemble.observe(x).bn.sum(), x)
        (some,) = torch.autograd.grad(ensemble.observe(x).logits.sum(), x)
    assert not none.any()
    assert some.any()


def test_logits_are_each_teacher_s_own() -> None:
    x = images(130)
    with Ensemble(teachers(), threads=2) as ensemble:
        found = ensemble.logits(x)
        assert len(ensemble) == 5
    assert found.shape == (5, 130, 4)
    assert not found.requires_grad
    for mine, teacher in zip(found, teachers(), strict=True):
        torch.testing.assert_close(mine, evaluate.answers(teacher, x), rtol=1e-4, atol=1e-5)


def test_teachers_of_volumes_answer_too() -> None:
    teacher = nn.Sequential(nn.Conv3d(1, 2, 3), nn.Flatten(), nn.Linear(16, 3)).eval()
    x = torch.rand(5, 1, 4, 4, 4, generator=generator())
    with Ensemble([teacher, teacher]) as ensemble:
        torch.testing.assert_close(ensemble.answer(x), teacher(x))


def test_bn_distance_is_that_of_the_definition() -> None:
    norm, x = nn.BatchNorm2d(2), images(5).reshape(5, 2, 12, 6)
    norm.running_mean, norm.running_var = torch.tensor([0.3, -1.0]), torch.tensor([2.0, 0.5])
    teacher = nn.Sequential(norm, nn.Flatten(), nn.BatchNorm1d(144)).eval()
    found = observe(teacher, x).bn.item()

    def distance(values: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> float:
        return float(
            np.linalg.norm(values.mean(0) - mean) + np.linalg.norm(values.var(0) - variance)
        )

    pixels = x.permute(0, 2, 3, 1).reshape(-1, 2).double().numpy()
    mean, variance = norm.running_mean.numpy(), norm.running_var.numpy()
    flat = (pixels - mean) / np.sqrt(variance + norm.eps)
    flat = flat.reshape(5, 72, 2).transpose(0, 2, 1).reshape(5, 144)
    expected = distance(pixels, mean, variance) + distance(flat, np.zeros(144), np.ones(144))
    assert found == pytest.approx(expected, rel=1e-5)


def test_activation_reads_what_enters_the_last_linear_layer() -> None:
    teacher, x = teachers()[4].eval(), images(3)
    hidden = torch.relu(teacher.get_submodule("hidden1")(x.flatten(1)))
    torch.testing.assert_close(observe(teacher, x).activation, -hidden.abs().mean(dim=1))
    assert not any(module._forward_pre_hooks for module in teacher.modules())
    assert not observe(nn.Flatten(), x).activation.any()


def test_no_hook_stays_behind_a_call_that_fails() -> None:
    teacher = teachers()[4].eval()
    with pytest.raises(RuntimeError):
        observe(teacher, torch.rand(2, 7))
    assert not any(module._forward_pre_hooks for module in teacher.modules())


def test_teachers_are_left_as_they_were() -> None:
    given = teachers()
    before = [{k: v.clone() for k, v in teacher.state_dict().items()} for teacher in given]
    x = images(8).requires_grad_()
    with Ensemble([*given, given[0]], threads=2) as ensemble:
        first = ensemble.logits(x)
        mixture(ensemble.observe(x)).backward()
        for parameter in given[0].parameters():
            parameter.data.zero_()
        assert torch.equal(ensemble.logits(x), first)
        assert torch.equal(first[0], first[-1])
    for teacher, state in zip(given[1:], before[1:], strict=True):
        assert teacher.training
        assert all(p.requires_grad and p.grad is None for p in teacher.parameters())
        assert all(torch.equal(v, state[k]) for k, v in teacher.state_dict().items())
        assert all(value.is_contiguous() for value in teacher.state_dict().values())


def test_threads_end_with_the_context_and_leave_this_one_alone() -> None:
    before, intra_op = threading.active_count(), torch.get_num_threads()
    with Ensemble(teachers(), threads=2) as ensemble:
        ensemble.logits(images(4))
        assert threading.active_count() > before
    assert threading.active_count() == before
    assert torch.get_num_threads() == intra_op


class ThreadCount(nn.Module):
    """Answers with the number of intra-op threads that it runs on."""

    def forward(self, x: Tensor) -> Tensor:
        return 0 * x + torch.get_num_threads()


def test_each_teacher_runs_on_one_core() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with Ensemble([ThreadCount()] * 3, threads=2) as ensemble:
            assert (ensemble.logits(torch.zeros(4, 1)) == 1).all()
            assert (ensemble.observe(torch.zeros(4, 1)).logits == 1).all()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_error_in_a_teacher_reaches_the_caller() -> None:
    with Ensemble(teachers(), threads=2) as ensemble:
        with pytest.raises(RuntimeError):
            ensemble.logits(torch.rand(3, 2, 12, 12))
        with pytest.raises(RuntimeError):
            ensemble.observe(torch.rand(3, 2, 12, 12))


def test_the_student_approaches_the_mean_of_the_teachers() -> None:
    x = images(60)
    student = models.build(SPECS[4], shape=SHAPE, classes=4, generator=generator(50))
    how = Optimisation(epochs=30, batch_size=20, optimiser="adam", learning_rate=0.01)
    with Ensemble(teachers()) as ensemble:
        target = ensemble.logits(x).mean(dim=0)
        kd = partial(label.kd, temperature=2.0)
        losses = multi_teacher.distil(student, ensemble, x, kd, how, generator())
    assert losses[-1] < losses[0] / 5
    assert (evaluate.answers(student, x) - target).softmax(1).sub(0.25).abs().max() < 0.2


@pytest.mark.parametrize(("count", "threads"), [(0, 1), (1, 0)])
def test_nobody_and_no_thread_are_refused(count: int, threads: int) -> None:
    with pytest.raises(ValueError, match=f"{count} teachers on {threads} threads"):
        Ensemble(teachers()[:count], threads=threads)


@pytest.mark.parametrize("count", [1, 3])
def test_an_ensemble_averages_logits_or_probabilities(count: int) -> None:
    x = torch.rand(5, *SHAPE, generator=generator(3))
    members = teachers()[:count]
    with Ensemble(members) as logits, Ensemble(members, average="probabilities") as probabilities:
        each = logits.logits(x).double()
        torch.testing.assert_close(logits.answer(x).double(), each.mean(dim=0))
        shares = probabilities.answer(x).double().exp()
    torch.testing.assert_close(shares, each.softmax(dim=2).mean(dim=0), rtol=1e-5, atol=1e-7)
