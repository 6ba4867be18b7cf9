"""The stacked hourglass: shapes, stages that forms may look at, and DP's trial."""

from typing import Any

import pytest
import torch
from torch import nn

from fedkd import models, tasks
from fedkd.config import ModelSpec, TaskChoice
from fedkd.errors import ConfigError
from fedkd.learning.dp.checks import check_model
from fedkd.models.layers import inspect_layers

POINTS = ("head", "hand")


def build(shape: tuple[int, ...], stride: int, **options: Any) -> nn.Module:
    task = tasks.build(TaskChoice(name="keypoints", stride=stride), inputs=shape, names=POINTS)
    spec = ModelSpec.model_validate({"name": "hourglass", "width": 8, "depth": 1, **options})
    draws = torch.Generator().manual_seed(0)
    return models.build(spec, shape=shape, classes=2, generator=draws, task=task)


@pytest.mark.parametrize(
    ("shape", "stride"), [((3, 24, 32), 4), ((1, 13, 9), 2), ((3, 8, 8), 1), ((1, 21, 30), 8)]
)
def test_it_answers_a_heatmap_a_point(shape: tuple[int, ...], stride: int) -> None:
    cells = (-(-shape[1] // stride), -(-shape[2] // stride))
    assert build(shape, stride)(torch.rand(2, *shape)).shape == (2, *cells, len(POINTS))


def test_every_stage_has_heat_to_look_at_and_the_last_is_the_answer() -> None:
    model = build((3, 16, 16), 4, stages=3)
    shapes = inspect_layers(model, (3, 16, 16)).shapes
    assert [shapes[f"stages.{n}.heat"] for n in range(3)] == [(2, 4, 4)] * 3
    heats = []
    model.stages[2].heat.register_forward_hook(lambda *given: heats.append(given[2]))
    answer = model(torch.rand(1, 3, 16, 16))
    torch.testing.assert_close(answer, heats[0].movedim(1, -1))


def test_stages_and_width_make_it_larger() -> None:
    sizes = [
        sum(each.numel() for each in build((3, 24, 24), 4, **options).parameters())
        for options in ({}, {"stages": 4}, {"width": 16}, {"depth": 2})
    ]
    assert sizes[0] < min(sizes[1:])


def test_dp_sgd_takes_it() -> None:
    check_model(build((1, 12, 12), 4, stages=1, width=4), (1, 12, 12))


@pytest.mark.parametrize("stride", [3, 6])
def test_a_stride_that_is_no_power_of_two_is_refused(stride: int) -> None:
    with pytest.raises(ConfigError, match=r"halves an image .* expected task.stride to be 1, 2, 4"):
        build((3, 36, 36), stride)


def test_a_depth_that_leaves_one_cell_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"halves 4x6 cells 2 times, .* lower hourglass.depth"):
        build((3, 16, 24), 4, depth=2)
