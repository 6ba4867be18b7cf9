"""Contrast-normalised random filters and their basis: by hand, at any size, alike everywhere."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedkd import models, rng
from fedkd.config import ModelSpec
from fedkd.data.shapes import made_up
from fedkd.errors import ConfigError
from fedkd.models.fixed import bases
from fedkd.models.fixed.buckets import Buckets

SMALL: dict[str, Any] = {
    "sides": [3, 5],
    "filters": [3, 4],
    "pool": 3,
    "components": 20,
    "shapes": 200,
}


def built(shape: tuple[int, ...] = (2, 9, 12), seed: int = 0, **options: Any) -> nn.Module:
    spec = ModelSpec.model_validate({"name": "contrast-filters", **SMALL, **options})
    draws = torch.Generator().manual_seed(seed)
    return models.build(spec, shape=shape, classes=4, generator=draws).eval()


def by_hand(x: Tensor, filters: Tensor, place: tuple[float, float, float, float]) -> Tensor:
    """One record's mean response to each filter in a window (top, bottom, left, right)."""
    _, height, width = x.shape
    side = filters.shape[-1]
    padded = F.pad(x, (side // 2,) * 4)
    top, bottom, left, right = place
    total, area = torch.zeros(len(filters)), 0.0
    for row in range(height):
        for column in range(width):
            across = min(column + 1, right) - max(column, left)
            down = min(row + 1, bottom) - max(row, top)
            if across <= 0 or down <= 0:
                continue
            patch = padded[:, row : row + side, column : column + side].flatten()
            response = (filters.flatten(1) @ patch).abs()
            total += across * down * response / ((patch - patch.mean()).norm() + 0.1)
            area += across * down
    return total / area


def test_a_window_is_the_mean_of_responses_over_contrast() -> None:
    front, x = built().get_submodule("filters"), torch.rand(1, 2, 9, 12)
    maps = front(x)
    assert maps.shape == (1, 9, 7)
    weights = front.get_buffer("weights")
    # The middle row's and the first column's window: steps of 3 and 4 pixels, half as much again.
    place = (4.5 - 2.25, 4.5 + 2.25, 0.0, 2 + 3.0)
    found = [
        weight * by_hand(x[0], front.get_buffer(f"filters{side}"), place)
        for side, weight in zip((3, 5), weights, strict=True)
    ]
    expected = (torch.cat(found) + 1e-6).sqrt()
    torch.testing.assert_close(
        maps[0, 3] / maps[0, 3].norm(), expected / expected.norm(), rtol=1e-4, atol=1e-5
    )
    assert math.isclose(float(maps.norm()), 1.0, rel_tol=1e-5)


def test_all_components_without_whitening_turn_features_and_change_no_distance() -> None:
    model = built(components=63, whitening=0.0)
    x = torch.rand(5, 2, 9, 12)
    maps = model.get_submodule("filters")(x)
    features = model.get_submodule("basis")(maps)
    assert features.shape == (5, 63)
    before, after = torch.cdist(maps.flatten(1), maps.flatten(1)), torch.cdist(features, features)
    torch.testing.assert_close(after / after.max(), before / before.max(), rtol=1e-3, atol=1e-3)


def test_fewer_components_are_the_first_of_many() -> None:
    x = torch.rand(4, 2, 9, 12)
    many, few = (nn.Sequential(*list(built(components=n))[:2])(x) for n in (40, 15))
    scaled = many[:, :15] * (few[0, 0] / many[0, 0])
    torch.testing.assert_close(few, scaled, rtol=1e-4, atol=1e-5)


def test_whatever_the_experiment_s_seed_the_front_is_one_and_the_last_layer_is_not() -> None:
    one, other, another = built(), built(seed=1), built(draw=1)
    learnt = [name for name, _ in one.named_parameters()]
    assert learnt == ["classifier.weight", "classifier.bias"]
    for name, each in bases(one).items():
        assert torch.equal(each, other.state_dict()[name])
    assert not torch.equal(one.get_parameter(learnt[0]), other.get_parameter(learnt[0]))
    assert not torch.equal(bases(one)["basis.mean"], bases(another)["basis.mean"])
    assert set(bases(one)) == {f"basis.{n}" for n in ("mean", "channels", "pairs", "scale")}
    assert bases(nn.Linear(2, 2)) == {}


def test_buckets_are_one_indicator_a_group_and_shapes_fall_into_them_evenly() -> None:
    x, drawn = torch.rand(7, 2, 9, 12), made_up(200, (2, 9, 12), rng.stream(0, purpose="shapes"))
    model = built(buckets=3, group=4)
    front, plain = (nn.Sequential(*list(each)[:-1]) for each in (model, built()))
    found = front(x)
    assert found.shape == (7, 20 * 3 // 4 * 16)
    groups = found.view(7, 15, 16)
    assert torch.equal((groups > 0).sum(dim=2), torch.ones(7, 15).long())
    torch.testing.assert_close(found.norm(dim=1), torch.ones(7))
    buckets = model.get_submodule("buckets")
    assert isinstance(buckets, Buckets)
    above = plain(drawn)[:, :, None] > buckets.thresholds
    share = above.float().mean(dim=0).mean(dim=0)
    torch.testing.assert_close(share, torch.tensor([0.75, 0.5, 0.25]), rtol=0, atol=0.01)
    # By hand: the pattern of one record's third group.
    bits = (plain(x)[0, :, None] > buckets.thresholds).flatten()
    pattern = [int(bits[place]) for place in buckets.get_buffer("order")[2]]
    assert int(groups[0, 2].argmax()) == sum(bit * 2**k for k, bit in enumerate(pattern))
    assert "buckets.thresholds" in bases(model)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 13, 10)])
def test_any_size_and_any_channels_and_norm_one_where_it_is_asked(shape: tuple[int, ...]) -> None:
    front = nn.Sequential(*list(built(shape, unit_norm=True))[:2])
    x = torch.rand(6, *shape)
    features = front(torch.cat([x, torch.zeros(1, *shape)]))
    torch.testing.assert_close(features.norm(dim=1), torch.ones(7))
    alone = torch.cat([front(each[None]) for each in x])
    torch.testing.assert_close(features[:6], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sides": [3]}, "expected one of each"),
        ({"sides": [3, 4]}, "sides holds 4: expected odd numbers"),
        ({"pool": 10}, "'contrast-filters.pool' is 10: expected at most the image's side, 9"),
        ({"sides": [3, 11]}, "expected at least 11x11"),
        ({"shapes": 5}, "shapes"),
        ({"components": 2, "buckets": 1}, "expected at most 2 features times 1 buckets"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        built(**options)
