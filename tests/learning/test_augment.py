"""Inputs changed on purpose: pixels by hand from the same draws, and where changes may stand."""

import math
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import pytest
import torch
from clusters import net as mlp
from clusters import rows as blobs
from torch import Tensor, nn

from fedkd import config, methods
from fedkd.config import Augmentation, Distillation, Knowledge, Optimisation, validate
from fedkd.data.types import Samples
from fedkd.errors import ConfigError
from fedkd.learning import augment, evaluate, moves, offline, supervised, ways
from fedkd.learning.dp import sgd
from fedkd.learning.forms import terms
from fedkd.models.layers import inspect_layers
from fedkd.tasks.likelihoods.categorical import CATEGORICAL, IGNORED

IMAGES = torch.arange(3 * 2 * 4 * 5).reshape(3, 2, 4, 5).float() + 1


def draws(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def changed(name: str, **parameters: Any) -> Tensor:
    view = augment.build([Augmentation(name=name, **parameters)])
    return view(IMAGES, draws())[0]


def by_pixel(colour: Callable[[int, int, int, int], Any]) -> Tensor:
    """An image for every (number, channel, row, column)."""
    n, c, h, w = IMAGES.shape
    return torch.tensor(
        [
            [[[float(colour(i, k, r, s)) for s in range(w)] for r in range(h)] for k in range(c)]
            for i in range(n)
        ]
    )


def pixel(i: int, k: int, r: int, s: int) -> float:
    """0 outside of the image."""
    inside = 0 <= r < IMAGES.shape[2] and 0 <= s < IMAGES.shape[3]
    return IMAGES[i, k, r, s].item() if inside else 0.0


def test_a_crop_moves_each_image() -> None:
    down, right = torch.randint(5, (2, 3), generator=draws()) - 2
    assert len({*down.tolist(), *right.tolist()}) > 2
    expected = by_pixel(lambda i, k, r, s: pixel(i, k, r + int(down[i]), s + int(right[i])))
    assert torch.equal(changed("crop", padding=2), expected)


def test_a_flip_mirrors_left_to_right() -> None:
    chosen = torch.rand(3, generator=draws()) < 0.4
    assert 0 < chosen.sum() < 3
    expected = by_pixel(lambda i, k, r, s: pixel(i, k, r, 4 - s if chosen[i] else s))
    assert torch.equal(changed("flip", probability=0.4), expected)


def test_a_rotation_is_bilinear_about_the_centre() -> None:
    angles = math.radians(60) * (2 * torch.rand(3, generator=draws()) - 1)

    def colour(i: int, k: int, r: int, s: int) -> float:
        cos, sin, y, x = math.cos(angles[i]), math.sin(angles[i]), r - 1.5, s - 2.0
        row, column = sin * x + cos * y + 1.5, cos * x - sin * y + 2.0
        top, left = math.floor(row), math.floor(column)
        return sum(
            (1 - abs(row - at)) * (1 - abs(column - beside)) * pixel(i, k, at, beside)
            for at in (top, top + 1)
            for beside in (left, left + 1)
        )

    torch.testing.assert_close(changed("rotate", degrees=60.0), by_pixel(colour))


def test_an_erased_square_may_lie_partly_outside() -> None:
    own = draws()
    chosen = torch.rand(3, generator=own) < 0.8
    row, column = (torch.randint(most, (3, 1), generator=own).flatten() for most in (4, 5))

    def colour(i: int, k: int, r: int, s: int) -> float:
        gone = chosen[i] and abs(r - row[i]) <= 1 and abs(s - column[i]) <= 1
        return 0.0 if gone else pixel(i, k, r, s)

    expected = by_pixel(colour)
    assert 0 < (expected == 0).sum() < 3 * 2 * 9
    assert torch.equal(changed("erase", size=3, probability=0.8), expected)


def test_noise_is_gaussian_on_every_number() -> None:
    noise = torch.randn(3, 2, 4, 5, generator=draws())
    torch.testing.assert_close(changed("noise", std=0.5), IMAGES + 0.5 * noise)


@pytest.mark.parametrize("name", ["brightness", "contrast"])
def test_a_factor_is_drawn_for_each_image(name: str) -> None:
    factors = 1 + 0.3 * (2 * torch.rand(3, generator=draws()) - 1)
    fixed = [0.0 if name == "brightness" else IMAGES[i].mean().item() for i in range(3)]
    expected = by_pixel(lambda i, k, r, s: fixed[i] + factors[i] * (pixel(i, k, r, s) - fixed[i]))
    torch.testing.assert_close(changed(name, by=0.3), expected)


SMALL = {"window": {"size": 3}}
"""Parameters for changes whose defaults are too large for `IMAGES`."""


@pytest.mark.parametrize("name", augment.BUILT_IN)
def test_a_change_touches_no_other_input_and_is_the_same_with_more_threads(name: str) -> None:
    before, params = IMAGES.clone(), SMALL.get(name, {})
    once = changed(name, **params)
    assert not torch.equal(once, IMAGES)
    assert torch.equal(before, IMAGES)
    assert once.shape == (IMAGES.shape if name != "window" else (3, 2, 3, 3))
    view = augment.build([Augmentation(name=name, **params)])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        assert torch.equal(view(IMAGES, draws())[0], once)
    finally:
        torch.set_num_threads(threads)
    other = IMAGES.clone()
    other[1:] = 1e6
    assert torch.equal(view(other, draws())[0][0], once[0])


def marked(choices: list[Augmentation]) -> tuple[Tensor, Tensor, Tensor]:
    """Images that say at each pixel where it came from, a mask that says the same, and places."""
    where = torch.arange(1, 21).reshape(1, 4, 5).repeat(3, 1, 1)
    corners = torch.tensor([[0.0, 0.0], [5.0, 4.0], [2.5, 1.5]]).repeat(3, 1, 1)
    x, motions = augment.build(choices)(where[:, None].float(), draws())
    assert isinstance(x, Tensor)
    masks = reduce(CATEGORICAL.moved, motions, where)
    for motion in motions:
        corners = motion.of_places(corners)
    return x[:, 0], masks, corners


@pytest.mark.parametrize("names", [["crop"], ["flip"], ["window"], ["window", "flip", "crop"]])
def test_masks_and_places_move_along(names: list[str]) -> None:
    params = {"crop": {"padding": 2}, "window": {"size": 3}, "flip": {}}
    x, masks, places = marked([Augmentation(name=name, **params[name]) for name in names])
    assert torch.equal(x, masks.where(masks != IGNORED, 0).float())
    assert len({each.numpy().tobytes() for each in x}) > 1
    for image, place in zip(x, places[:, 2] - 0.5, strict=True):  # to the pixel of the third
        column, row = place.tolist()
        if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
            assert image[int(row), int(column)] == 8  # the second row's third


def test_a_class_of_the_whole_image_stays() -> None:
    _, motions = augment.build([Augmentation(name="flip")])(IMAGES, draws())
    assert reduce(CATEGORICAL.moved, motions, torch.tensor([2, 0, 1])).tolist() == [2, 0, 1]


def test_a_training_moves_masks_with_images() -> None:
    x = torch.rand(6, 1, 8, 8, generator=draws())
    samples, told = Samples(x, (x[:, 0] > 0.5).long()), []

    class Threshold(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(40.0))

        def forward(self, x: Tensor) -> Tensor:
            told.append(x.shape)
            z = self.scale * (x[:, 0] - 0.5)
            return torch.stack([-z, z], dim=-1)

    changes = ["flip", {"name": "window", "size": 5}]
    losses = supervised.train(Threshold(), samples, how(augment=changes), draws())
    assert {shape[2:] for shape in told} == {(5, 5)}
    assert losses[0] < 0.1  # masks that stayed would cost nats


def test_changes_are_made_in_their_order() -> None:
    both = augment.build([Augmentation(name="crop"), Augmentation(name="noise")])
    own = draws()
    one = moves.cropped(IMAGES, own, padding=4).of_images(IMAGES)
    assert torch.equal(both(IMAGES, draws())[0], augment.noisy(one, own, std=0.1))


@pytest.mark.parametrize(
    ("choices", "shape", "targets", "complaint"),
    [
        (
            ["flop"],
            (1, 8, 8),
            "classes",
            "augment\\[0\\]: unknown .* 'flop': .*did you mean 'flip'",
        ),
        (["noise", {"name": "crop", "pading": 2}], (1, 8, 8), "classes", "augment\\[1\\].pading"),
        (
            [{"name": "noise", "std": 0}],
            (3,),
            "classes",
            "augment\\[0\\].std' is 0: expected greater",
        ),
        ([{"name": "window"}], (1, 8, 8), "classes", "'window': it gives images of another size"),
        ([{"name": "window"}], (1, 8, 8), "boxes", "'window': it gives images of another size"),
        (["contrast", "crop"], (1, 8, 8), "numbers", "augment\\[1\\] is 'crop': it moves .*noise"),
        (
            ["noise", "crop"],
            (3,),
            "classes",
            "augment\\[1\\] is 'crop': .*choose among noise, dropout, brightness",
        ),
    ],
)
def test_what_does_not_suit_is_refused(
    choices: Any, shape: Any, targets: Any, complaint: str
) -> None:
    training = validate(Optimisation, {"augment": choices})
    with pytest.raises(ConfigError, match=complaint):
        augment.check(training.augment, shape, targets, key="clients.training.augment")


def test_masks_refuse_what_they_cannot_follow() -> None:
    check = partial(augment.check, shape=(1, 8, 9), targets="masks", key="a", along=True)
    check([Augmentation(name="window", size=8), Augmentation(name="flip")])
    with pytest.raises(ConfigError, match=r"a\[0\].size is 9, and images are 8x9"):
        check([Augmentation(name="window", size=9)])
    with pytest.raises(ConfigError, match="'rotate': it moves"):
        check([Augmentation(name="rotate")])


def how(**changes: Any) -> Optimisation:
    return Optimisation.model_validate(
        {"epochs": 2, "batch_size": 16, "learning_rate": 0.05, **changes}
    )


NOISE = ({"name": "noise", "std": 0.3},)


class Seeing(nn.Module):
    """Remembers what it was shown."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.shown: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shown.append(x.clone())
        answer: Tensor = self.inner(x)
        return answer


def test_a_training_sees_every_record_anew_by_the_stream_of_its_batches() -> None:
    data, net = blobs(), Seeing(mlp())
    supervised.train(net, data, how(augment=NOISE), draws(3))
    own = draws(3)
    expected = [
        augment.noisy(data.x[rows], own, std=0.3)
        for _ in range(2)
        for rows in torch.randperm(len(data.y), generator=own).split(16)
    ]
    assert len(net.shown) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(net.shown, expected, strict=True))


def test_a_teacher_is_asked_about_what_the_student_sees() -> None:
    data, student, teacher = blobs(), mlp(1), mlp(2).eval()
    shape = tuple(data.x.shape[1:])
    anatomies = [inspect_layers(model, shape) for model in (student, teacher)]
    knowledge = terms.resolve((Knowledge(name="kd"),), *anatomies)
    built = terms.build(knowledge, *anatomies, draws())
    seeing, shown = Seeing(teacher).eval(), []
    student.register_forward_pre_hook(lambda _, args: shown.append(args[0].clone()))
    offline.teach(student, seeing, built, data, how(augment=NOISE), draws(3), labels=0.0)
    assert len(shown) > 0
    assert all(torch.equal(a, b) for a, b in zip(shown, seeing.shown, strict=True))


def test_under_dp_the_draws_are_not_the_seed_s() -> None:
    noise = sgd.Noise(noise_multiplier=1e-6, clip=1.0, sample_rate=1.0, batch_size=40)
    ends = []
    for changes in (NOISE, NOISE, (), ()):
        net = mlp()
        sgd.train(net, blobs(), how(epochs=1, augment=changes), noise)
        ends.append(torch.cat([each.flatten() for each in net.parameters()]))
    apart = (ends[0] - ends[1]).abs().max()
    assert apart > 100 * (ends[2] - ends[3]).abs().max()


@pytest.mark.parametrize("name", augment.BUILT_IN)
def test_a_step_of_dp_without_any_record_changes_nothing(name: str) -> None:
    nobody = IMAGES[:0]
    view = augment.build([Augmentation(name=name, **SMALL.get(name, {}))])
    assert len(view(nobody, draws())[0]) == 0


def test_a_model_that_is_evaluated_sees_inputs_as_they_are() -> None:
    data, net = blobs(), Seeing(mlp())
    supervised.train(net, data, how(augment=NOISE), draws())
    net.shown.clear()
    evaluate.accuracy(net, Samples(data.x, data.y))
    assert torch.equal(torch.cat(net.shown), data.x)


FEDERATION = {"name": "a", "rounds": 1, "clients": {"count": 2}, "data": {"public": {"size": 20}}}
DISTILLATION = {"name": "a", "student": {"training": {"augment": ["flip"]}}}


@pytest.mark.parametrize(
    ("resolve", "table", "complaint"),
    [
        (
            lambda table: methods.resolve(config.parse(table)),
            {**FEDERATION, "method": {"name": "fedmd", "student": {"augment": ["flip"]}}},
            r"method.student.augment .* \[clients.training\] may have it",
        ),
        (
            lambda table: methods.resolve(config.parse(table)),
            {
                **FEDERATION,
                "method": {"name": "fedmd"},
                "clients": {"count": 2, "training": {"augment": ["flop"]}},
            },
            r"clients.training.augment\[0\]: unknown change of inputs 'flop'",
        ),
        (
            lambda table: ways.resolve(validate(Distillation, table)),
            {**DISTILLATION, "way": {"name": "born-again"}},
            "way 'born-again' learns from answers .*choose among offline, ",
        ),
        (
            lambda table: ways.resolve(validate(Distillation, table)),
            {
                **DISTILLATION,
                "way": {"name": "offline"},
                "teachers": [{}],
                "knowledge": [{"name": "kd"}],
                "privacy": {"epsilon": 8.0},
            },
            r"under \[privacy\] the teacher answers to them as they are",
        ),
    ],
)
def test_where_answers_belong_to_inputs_as_they_are_a_change_is_refused(
    resolve: Any, table: Any, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        resolve(table)
