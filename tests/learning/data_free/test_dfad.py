"""A student of answers at every place, from a teacher alone."""

import copy

import pytest
import torch
from clusters import generator, state, unchanged
from torch import Tensor, nn

from fedkd import models
from fedkd.config import Optimisation
from fedkd.errors import FederationError
from fedkd.knowledge import label
from fedkd.learning.data_free import dfad
from fedkd.models import call

SHAPE = (1, 8, 8)
PARAMS = dfad.Adversarial(steps=6, imitations=2, batch_size=6, latent=4, width=2)
HOW = Optimisation(epochs=4, batch_size=16, optimiser="adam", learning_rate=0.02)


class Dense(nn.Module):
    """Logits (N, H, W, 3) of images (N, 1, H, W)."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).movedim(1, -1)


def pair() -> tuple[nn.Module, nn.Module, nn.Module]:
    with torch.random.fork_rng():
        student, teacher = Dense(1), Dense(2).eval().requires_grad_(requires_grad=False)
    return (
        student,
        teacher,
        models.build_generator(SHAPE, latent=4, width=2, generator=generator(3)),
    )


def gap(student: nn.Module, teacher: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return label.mae(call.answer(student, x), call.answer(teacher, x)).mean().item()


def test_a_student_comes_near_its_teacher_on_images_that_nobody_showed_it() -> None:
    student, teacher, maker = pair()
    x = torch.rand(20, *SHAPE, generator=generator(4))
    before, told = gap(student, teacher, x), state(teacher)
    epochs: list[float] = []
    losses = dfad.train(
        student, teacher, maker, PARAMS, HOW, generator(5), on_epoch=lambda _, v: epochs.append(v)
    )
    assert losses == epochs
    assert len(losses) == HOW.epochs
    assert gap(student, teacher, x) < before / 2
    assert unchanged(teacher, told)
    assert not student.training


def test_the_generator_goes_where_they_differ() -> None:
    student, teacher, maker = pair()
    frozen = HOW.model_copy(update={"learning_rate": 1e-12, "epochs": 6})
    z = torch.randn(32, 4, generator=generator(6))
    before = gap(student, teacher, copy.deepcopy(maker)(z).detach())
    dfad.train(student, teacher, maker, PARAMS, frozen, generator(5))
    assert gap(student, teacher, maker(z).detach()) > before


def test_the_same_draws_give_the_same_student() -> None:
    ends = []
    for _ in range(2):
        student, teacher, maker = pair()
        dfad.train(student, teacher, maker, PARAMS, HOW, generator(5))
        ends.append(state(student))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_what_diverges_ends_with_a_line() -> None:
    student, teacher, maker = pair()
    wild = HOW.model_copy(update={"optimiser": "sgd", "learning_rate": 1e30})
    with pytest.raises(FederationError, match="diverged"):
        dfad.train(student, teacher, maker, PARAMS, wild, generator(5))
