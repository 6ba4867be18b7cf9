"""Ways to learn, of a task without classes: by its likelihood, or refused in one line."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedkd.config import Optimisation
from fedkd.data.types import Samples
from fedkd.errors import ConfigError
from fedkd.learning import ways
from fedkd.learning.consensus import average_logits
from fedkd.learning.ways import born_again, mean_teacher, multi_teacher, mutual
from fedkd.tasks import Likelihood, Task

HOW = Optimisation(epochs=30, batch_size=8, learning_rate=0.1)


def nll(answers: Tensor, targets: Tensor) -> Tensor:
    return (answers - targets).square().mean(dim=1) / 2


def divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    return nll(student, teacher)


NUMBERS = Likelihood(
    nll,
    lambda answers, targets: nll(answers, targets).mean(),
    divergence,
    lambda answers: answers,
)
TASK = Task("numbers", (3,), (2,), "numbers", ("a", "b"), NUMBERS, scores=())


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fresh() -> nn.Linear:
    model = nn.Linear(3, 2)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def samples() -> Samples:
    x = torch.rand(32, 3, generator=draws(1))
    return Samples(x, x @ torch.tensor([[2.0, 0.0], [0.0, -3.0], [1.0, 1.0]]))


def by_mutual() -> nn.Module:
    peers = [fresh(), nn.Linear(3, 2)]
    mutual.train(peers, samples(), HOW, draws(2), likelihood=NUMBERS)
    return peers[0]


def by_born_again() -> nn.Module:
    """From parents alone, one too high by as much as the other is too low."""
    parents = [taught(0.5), taught(-0.5)]
    student = fresh()
    born_again.next_generation(
        student, parents, samples(), HOW, draws(2), labels=0.0, likelihood=NUMBERS
    )
    return student


def by_multi_teacher() -> nn.Module:
    student, x = fresh(), samples().x
    told = torch.stack([taught(0.5)(x), taught(-0.5)(x)]).detach()
    weights: dict[str, Any] = {"labels": 0.0, "weight": 1.0, "temperature": 4.0}
    multi_teacher.teach(
        student, told, average_logits, samples(), HOW, draws(2), likelihood=NUMBERS, **weights
    )
    return student


def by_mean_teacher() -> nn.Module:
    return mean_teacher.train(
        fresh(),
        samples(),
        HOW,
        draws(2),
        view=lambda x, _: x,
        weight=lambda _: 1.0,
        decay=0.9,
        likelihood=NUMBERS,
    )


def taught(shift: float) -> nn.Linear:
    model = fresh()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, 0.0, 1.0], [0.0, -3.0, 1.0]]))
        model.bias.fill_(shift)
    return model


@pytest.mark.parametrize(
    "learn", [by_mutual, by_born_again, by_multi_teacher, by_mean_teacher], ids=lambda f: f.__name__
)
def test_the_student_learns_numbers(learn: Any) -> None:
    found, spread = learn(), nll(samples().y, samples().y.mean(dim=0)).mean()
    assert nll(found(samples().x), samples().y).mean() < 0.05 * spread


@pytest.mark.parametrize(
    ("name", "chosen", "who"),
    [
        ("multi-teacher", {}, "way.average = 'probabilities', unlike 'logits' and 'random',"),
        ("multi-teacher", {"average": "class"}, "way.average = 'class'"),
        ("multi-teacher", {"average": "logits", "skew": 1.0}, "way.skew asks for classes"),
        ("dafl", {}, "it asks for classes"),
        ("adi", {}, "it asks for classes"),
    ],
)
def test_what_needs_classes_is_refused(name: str, chosen: dict[str, Any], who: str) -> None:
    way = ways.find(name)
    with pytest.raises(ConfigError, match=f"{who}.*choose among offline, injection, mutual"):
        ways.check_task(way, way.Params.model_validate(chosen), name, TASK)


def test_what_needs_none_is_not_refused() -> None:
    for name, chosen in {
        "mutual": {"peers": ["mlp"]},
        "multi-teacher": {"average": "random"},
    }.items():
        way = ways.find(name)
        ways.check_task(way, way.Params.model_validate(chosen), name, TASK)
