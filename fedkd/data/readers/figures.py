"""Drawn figures: pictures of jointed people that nobody has to ask, at four sites of unlike looks.

No set of real people with joints comes with an open licence in a package that could be had, so
these are drawn: limbs on a skeleton of drawn lengths and angles, size, turn, clothes, clutter that
looks like limbs, and a board that hides some joints. They show what a federation of keypoints does,
and say nothing of how good it is on photographs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from fedkd import rng
from fedkd.data.types import Dataset, Samples

NAME = "drawn-figures"
SIDE = 48
"""Pixels of an image, down and across."""
TRAIN, TEST = 250, 75
"""How many figures each site has."""
JOINTS = (
    "head", "neck",
    "left shoulder", "right shoulder", "left elbow", "right elbow", "left wrist", "right wrist",
    "left hip", "right hip", "left knee", "right knee", "left ankle", "right ankle",
)  # fmt: skip
"""As of Leeds Sports Poses (Johnson & Everingham 2010). Left is the figure's own, who faces us."""

Colour = tuple[float, float, float]
_SKIN: Colour = (0.85, 0.65, 0.52)


@dataclass(frozen=True)
class Look:
    """How figures of a site look; colours vary around these.

    Attributes:
        shirt: of trunk and upper arms.
        trousers: of the legs.
        ground: of the background.
        stripes: by how much stripes lighten and darken the background.
        clutter: how many things in the colours of clothes and skin lie about.
    """

    shirt: Colour
    trousers: Colour
    ground: Colour
    stripes: float
    clutter: int


SITES = {
    "studio": Look((0.2, 0.3, 0.7), (0.15, 0.15, 0.2), (0.9, 0.9, 0.88), 0.0, 1),
    "street": Look((0.8, 0.2, 0.2), (0.2, 0.3, 0.5), (0.55, 0.55, 0.55), 0.2, 4),
    "forest": Look((0.45, 0.6, 0.25), (0.4, 0.3, 0.15), (0.2, 0.4, 0.2), 0.12, 5),
    "night": Look((0.35, 0.35, 0.4), (0.25, 0.2, 0.3), (0.08, 0.08, 0.15), 0.06, 4),
}
"""The natural clients, in their order."""


@lru_cache(maxsize=2)
def draw(seed: int) -> Dataset:
    """`TRAIN` figures of each site for training and `TEST` for testing, site after site.

    Inputs are float32 (N, 3, SIDE, SIDE) in [0, 1], targets the `JOINTS`, float32 (N, 14, 3). A
    joint that is outside the image or behind a board is not visible, and stands at 0, 0.

    Args:
        seed: the same seed draws the same figures.
    """
    parts = []
    for part, count in (("train", TRAIN), ("test", TEST)):
        drawn = [
            _figures(look, count, rng.stream(seed, purpose=f"{NAME}-{part}", client=site))
            for site, look in enumerate(SITES.values())
        ]
        inputs, points = zip(*drawn, strict=True)
        parts.append(Samples(torch.cat(inputs), torch.cat(points)))
    train, test = parts
    return Dataset(
        name=NAME,
        train=train,
        test=test,
        classes=len(JOINTS),
        class_names=JOINTS,
        groups=torch.arange(len(SITES)).repeat_interleave(TRAIN),
        targets="points",
    )


def _between(generator: torch.Generator, count: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def _towards(angle: Tensor) -> Tensor:
    """The direction at an angle from straight down, to the right of the image: (N, 2)."""
    return torch.stack([angle.sin(), angle.cos()], dim=-1)


def _skeleton(count: int, generator: torch.Generator) -> Tensor:
    """Where joints are in pixels, as x to the right and y down: (count, 14, 2)."""

    def between(low: float, high: float) -> Tensor:
        return _between(generator, count, low, high)

    size = between(0.6, 1.0)[:, None] * SIDE
    turn = between(-0.6, 0.6)
    down, right = _towards(turn), _towards(turn + torch.pi / 2)
    middle = torch.stack([between(0.38, 0.62), between(0.42, 0.58)], dim=-1) * SIDE
    neck = middle - 0.28 * size * down
    head = neck - 0.14 * size * _towards(turn + between(-0.4, 0.4))
    joints = {"head": head, "neck": neck}
    for side, sign in (("left", 1.0), ("right", -1.0)):  # who faces us has the left on our right
        upper = turn + sign * between(-0.2, 2.6)
        fore = upper + sign * between(-0.3, 2.0)
        thigh = turn + sign * between(-0.1, 0.8)
        shin = thigh - sign * between(-0.2, 1.0)
        shoulder = neck + size * (0.11 * sign * right + 0.03 * down)
        elbow = shoulder + 0.16 * size * _towards(upper)
        hip = neck + size * (0.07 * sign * right + 0.32 * down)
        knee = hip + 0.2 * size * _towards(thigh)
        joints |= {
            f"{side} shoulder": shoulder,
            f"{side} elbow": elbow,
            f"{side} wrist": elbow + 0.15 * size * _towards(fore),
            f"{side} hip": hip,
            f"{side} knee": knee,
            f"{side} ankle": knee + 0.2 * size * _towards(shin),
        }
    return torch.stack([joints[name] for name in JOINTS], dim=1)


def _painted(images: Tensor, start: Tensor, end: Tensor, radius: Tensor, colours: Tensor) -> Tensor:
    """Images (N, 3, S, S) with a line of round ends in each, of colours (N, 3)."""
    along_x, along_y = (end - start)[:, :, None, None].unbind(dim=1)
    middles = torch.arange(SIDE) + 0.5
    x = middles - start[:, 0, None, None]
    y = middles[:, None] - start[:, 1, None, None]
    length = (along_x.square() + along_y.square()).clamp(min=1e-6)
    share = ((x * along_x + y * along_y) / length).clamp(0, 1)
    away = torch.hypot(x - share * along_x, y - share * along_y)
    cover = (radius[:, None, None] - away + 0.5).clamp(0, 1)[:, None]
    return images + cover * (colours[..., None, None] - images)


def _figures(look: Look, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Figures of one look: images (count, 3, SIDE, SIDE) and points (count, 14, 3)."""

    def between(low: float, high: float) -> Tensor:
        return _between(generator, count, low, high)

    def near(colour: Sequence[float]) -> Tensor:
        shift = 0.08 * torch.randn(count, 3, generator=generator)
        return (torch.tensor(colour) + shift).clamp(0, 1)

    colours = [near(look.shirt), near(look.trousers), near(_SKIN)]
    shirt, trousers, skin = colours
    images = _background(look, near(look.ground), generator)
    for number in range(look.clutter):
        start = SIDE * torch.rand(count, 2, generator=generator)
        end = start + SIDE * between(0.06, 0.28)[:, None] * _towards(between(0, 2 * torch.pi))
        images = _painted(images, start, end, SIDE * between(0.015, 0.05), colours[number % 3])
    joints = _skeleton(count, generator)
    at = dict(zip(JOINTS, joints.unbind(dim=1), strict=True))
    thick = (at["neck"] - at["head"]).norm(dim=-1) / 0.14  # the figure's size
    belt = (at["left hip"] + at["right hip"]) / 2
    limbs = [(at["neck"], belt, 0.075, shirt), (at["neck"], at["head"], 0.025, skin)]
    for side in ("left", "right"):
        a, b, c = (at[f"{side} {name}"] for name in ("hip", "knee", "ankle"))
        limbs += [(belt, a, 0.05, trousers), (a, b, 0.042, trousers), (b, c, 0.034, trousers)]
        a, b, c = (at[f"{side} {name}"] for name in ("shoulder", "elbow", "wrist"))
        limbs += [(at["neck"], a, 0.045, shirt), (a, b, 0.036, shirt), (b, c, 0.027, skin)]
    limbs += [(at["head"], at["head"], 0.06, skin)]
    for start, end, radius, colour in limbs:
        images = _painted(images, start, end, radius * thick, colour)
    images, hidden = _boarded(images, joints, near(look.ground), generator)
    images = images + 0.03 * torch.randn(images.shape, generator=generator)
    inside = ((joints > 0) & (joints < SIDE)).all(dim=-1)
    visible = (inside & ~hidden)[..., None].float()
    return images.clamp(0, 1), torch.cat([joints * visible, visible], dim=-1)


def _background(look: Look, ground: Tensor, generator: torch.Generator) -> Tensor:
    """A colour (N, 3), stripes in a direction of their own, and a light from one side."""
    count = len(ground)
    middles = (torch.arange(SIDE) + 0.5) / SIDE
    places = torch.stack(torch.meshgrid(middles, middles, indexing="xy"), dim=-1)
    along = _towards(_between(generator, count, 0, 2 * torch.pi))
    waves = _between(generator, count, 12, 40)[:, None, None]
    across = torch.einsum("hwc,nc->nhw", places, along)
    light = 0.1 * (across - across.mean(dim=(1, 2), keepdim=True))
    shade = look.stripes * (waves * across).sin() + light
    return (ground[..., None, None] + shade[:, None]).clamp(0, 1)


def _boarded(
    images: Tensor, joints: Tensor, colours: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Images of which half have a board before some joint, and which joints it hides: (N, 14)."""
    count = len(images)
    there = torch.rand(count, generator=generator) < 0.5
    sides = SIDE * (0.12 + 0.2 * torch.rand(count, 2, generator=generator))
    hidden = torch.randint(len(JOINTS), (count,), generator=generator)
    corner = joints[torch.arange(count), hidden] - sides * torch.rand(count, 2, generator=generator)
    middles = torch.arange(SIDE) + 0.5
    places = torch.stack(torch.meshgrid(middles, middles, indexing="xy"), dim=-1)

    def behind(points: Tensor) -> Tensor:
        """Which of points (..., 2), broadcast to (N, ..., 2), a board hides."""
        ones = (1,) * (points.dim() - 2)
        first, size = (each.reshape(count, *ones, 2) for each in (corner, sides))
        within = ((points >= first) & (points <= first + size)).all(dim=-1)
        return within & there.reshape(count, *ones)

    cover = behind(places.expand(count, -1, -1, -1))[:, None]
    return torch.where(cover, 0.8 * colours[..., None, None], images), behind(joints)
