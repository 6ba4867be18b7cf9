from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedkd import models
from fedkd.config import ModelSpec, Optimisation
from fedkd.data.types import Samples
from fedkd.errors import FederationError
from fedkd.knowledge import synthetic
from fedkd.learning import evaluate, supervised
from fedkd.learning.data_free import objectives
from fedkd.learning.data_free.synthesis import Synthetic, Views, synthesise
from fedkd.learning.ensemble import Ensemble
from fedkd.learning.teacher_statistics import Observation, observe

SHAPE = (1, 8, 8)
CLASSES = 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def corners(rows: int = 160) -> Samples:
    """Images with one bright corner, which is the label."""
    draws = generator(1)
    y = torch.randint(CLASSES, (rows,), generator=draws)
    x = 0.3 * torch.rand(rows, *SHAPE, generator=draws)
    for image, label in zip(x, y.tolist(), strict=True):
        row, column = divmod(label, 2)
        image[0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 0.7
    return Samples(x, y)


def classifier(seed: int) -> nn.Module:
    spec = ModelSpec(name="dense-cnn")
    return models.build(spec, shape=SHAPE, classes=CLASSES, generator=generator(seed))


@pytest.fixture(scope="module")
def teachers() -> list[nn.Module]:
    built = [classifier(seed) for seed in (1, 2)]
    how = Optimisation(epochs=5, batch_size=16, learning_rate=0.05)
    for seed, teacher in enumerate(built):
        supervised.train(teacher, corners(), how, generator(seed))
        assert evaluate.accuracy(teacher, corners()) > 0.95
    return built


def generator_net(classes: int | None = None) -> nn.Module:
    return models.build_generator(
        SHAPE, latent=16, width=8, classes=classes, generator=generator(3)
    )


def run(
    teachers: list[nn.Module],
    student: nn.Module,
    objective: Callable[[Views], Tensor],
    *,
    conditional: bool = False,
    steps: int = 40,
    rate: float = 0.01,
    threads: int = 1,
) -> Synthetic:
    net = generator_net(CLASSES if conditional else None)
    with Ensemble(teachers, threads=threads) as ensemble:
        return synthesise(
            net,
            ensemble,
            student,
            objective,
            classes=CLASSES,
            steps=steps,
            batch_size=32,
            latent=16,
            learning_rate=rate,
            rng=generator(4),
        )


@pytest.mark.parametrize("objective", [objectives.dense, objectives.adi])
@pytest.mark.parametrize("conditional", [False, True])
def test_teachers_see_the_labels_that_were_aimed_at(
    teachers: list[nn.Module], objective: Callable[[Views], Tensor], *, conditional: bool
) -> None:
    batch = run(teachers, classifier(5), objective, conditional=conditional)
    assert batch.x.shape == (32, *SHAPE)
    assert batch.x.dtype == torch.float32
    assert not batch.x.requires_grad
    assert len(batch.losses) == 40
    assert min(batch.losses) < 0.7 * batch.losses[0]
    for teacher in teachers:
        assert evaluate.accuracy(teacher, Samples(batch.x, batch.y)) > 0.6  # chance: 0.25


def test_dafl_makes_teachers_sure_of_every_class(teachers: list[nn.Module]) -> None:
    batch = run(teachers, classifier(5), objectives.dafl)
    answers = torch.stack([evaluate.answers(teacher, batch.x) for teacher in teachers]).mean(0)
    assert batch.losses[-1] < batch.losses[0]
    assert answers.softmax(1).amax(1).mean() > 0.8
    assert answers.softmax(1).mean(0).min() > 0.1


def test_the_batch_with_the_lowest_objective_is_returned(teachers: list[nn.Module]) -> None:
    seen: list[Tensor] = []

    def up_and_down(views: Views) -> Tensor:
        seen.append(views.x.detach().clone())
        height = [3.0, 1.0, 2.0, 5.0][len(seen) - 1]
        return views.x.mean() - views.x.mean().detach() + height

    batch = run(teachers, classifier(5), up_and_down, steps=4)
    assert batch.losses == (3.0, 1.0, 2.0, 5.0)
    assert torch.equal(batch.x, seen[1])
    assert not torch.equal(seen[3], seen[1])


def test_it_equals_the_textbook_loop(teachers: list[nn.Module]) -> None:
    found = run(teachers, classifier(5), objectives.dense, steps=4)
    draws, net, student = generator(4), generator_net(), classifier(5).eval()
    y = torch.randint(CLASSES, (32,), generator=draws)
    z = torch.randn(32, 16, generator=draws).requires_grad_()
    optimiser = torch.optim.Adam([z, *net.parameters()], lr=0.01, betas=(0.5, 0.999))
    losses = []
    for _ in range(4):
        x = net(z)
        shown = [observe(teacher, x) for teacher in teachers]
        mean = (shown[0].logits + shown[1].logits) / 2
        loss = F.cross_entropy(mean, y) + (shown[0].bn + shown[1].bn) / 2
        loss = loss + synthetic.disagreement(student(x), mean).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert torch.equal(found.y, y)
    assert found.losses == pytest.approx(losses, rel=1e-3)


def test_the_student_is_untouched_and_in_evaluation_mode(teachers: list[nn.Module]) -> None:
    student = classifier(5)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    modes: list[bool] = []

    def objective(views: Views) -> Tensor:
        modes.append(student.training)
        return objectives.dense(views)

    run(teachers, student, objective, steps=3)
    assert modes == [False] * 3
    assert all(module.training for module in student.modules())
    assert all(parameter.grad is None for parameter in student.parameters())
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())


def test_the_same_stream_gives_the_same_batch_on_any_number_of_threads(
    teachers: list[nn.Module],
) -> None:
    one, two = (
        run(teachers, classifier(5), objectives.dense, steps=4, threads=threads)
        for threads in (1, 2)
    )
    assert torch.equal(one.x, two.x)
    assert torch.equal(one.y, two.y)
    assert one.losses == two.losses


def test_the_student_s_disagreement_pulls_samples_across_its_boundary(
    teachers: list[nn.Module],
) -> None:
    student = classifier(6)
    how = Optimisation(epochs=2, batch_size=16, learning_rate=0.02)
    supervised.train(student, corners(), how, generator())

    def disagreeing(adversarial: float) -> float:
        weighted = partial(objectives.dense, adversarial=adversarial)
        batch = run(teachers, student, weighted)
        truth = torch.stack([evaluate.answers(t, batch.x) for t in teachers]).mean(0).argmax(1)
        return 1 - evaluate.accuracy(student, Samples(batch.x, truth))

    assert disagreeing(10.0) > disagreeing(0.0) + 0.1


def views() -> Views:
    draws = generator(8)
    teachers = Observation(
        torch.randn(3, 6, CLASSES, generator=draws),
        torch.rand(3, generator=draws),
        -torch.rand(3, 6, generator=draws),
    )
    student = torch.randn(6, CLASSES, generator=draws)
    y = torch.randint(CLASSES, (6,), generator=draws)
    x = torch.rand(6, *SHAPE, generator=draws)
    return Views(x, y, teachers, teachers.logits.mean(dim=0), student)


def test_objectives_are_the_weighted_sums_that_they_say() -> None:
    seen = views()
    mean = seen.teachers.logits.sum(0) / 3
    p, q = mean.softmax(1), seen.student.softmax(1)
    ce, bn = F.cross_entropy(mean, seen.y), seen.teachers.bn.mean()
    differ = (mean.argmax(1) != seen.student.argmax(1)).float()
    gap = (differ * (p * (p / q).log()).sum(1)).sum() / 6
    torch.testing.assert_close(
        objectives.dense(seen, bn=2.0, adversarial=3.0), ce + 2 * bn - 3 * gap
    )
    middle = (p + q) / 2
    js = ((p * (p / middle).log()).sum(1) + (q * (q / middle).log()).sum(1)) / 2
    prior = {"total_variation": 0.0, "l2": 0.5}
    norms = seen.x.flatten(1).square().sum(1).sqrt().mean()
    torch.testing.assert_close(
        objectives.adi(seen, bn=2.0, competition=3.0, **prior),
        ce + 2 * bn + 3 * (1 - js).mean() + 0.5 * norms,
    )
    own = p.gather(1, seen.y[:, None]).squeeze(1)
    soft, answer = (mean / 3).softmax(1), (seen.student / 3).softmax(1)
    away = 9 * (soft * (soft / answer).log()).sum(1).mean()
    torch.testing.assert_close(
        objectives.co_boosting(seen, adversarial=2.0, temperature=3.0),
        -((1 - own) * own.log()).mean() - 2 * away,
    )
    sure = -p.amax(1).log().mean()
    balance = (p.mean(0) * p.mean(0).log()).sum()
    torch.testing.assert_close(
        objectives.dafl(seen, activation=2.0, entropy=3.0),
        sure + 2 * seen.teachers.activation.mean() + 3 * balance,
    )


def test_total_variation_smooths(teachers: list[nn.Module]) -> None:
    adi = partial(objectives.adi, bn=0.0, competition=0.0)
    rough, smooth = (
        run(teachers, classifier(5), partial(adi, total_variation=weight)).x
        for weight in (0.0, 1.0)
    )
    assert smooth.diff(dim=-1).abs().mean() < 0.7 * rough.diff(dim=-1).abs().mean()


def test_divergence_is_one_clear_error(teachers: list[nn.Module]) -> None:
    with pytest.raises(FederationError, match="synthesis diverged: the objective is inf at step 1"):
        run(teachers, classifier(5), lambda seen: seen.x.sum() * float("inf"))
