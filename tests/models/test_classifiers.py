import itertools
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd import models
from fedkd.config import ModelSpec
from fedkd.errors import ConfigError

IMAGE_CLASSIFIERS = ("dense-cnn", "lenet5", "mlp", "resnet8", "scattering", "random-filters")


def built(
    name: str,
    shape: tuple[int, ...] = (1, 28, 28),
    classes: int = 10,
    seed: int = 0,
    **options: Any,
) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    spec = ModelSpec.model_validate({"name": name, **options})
    return models.build(spec, shape=shape, classes=classes, generator=generator)


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("dense-cnn", (1, 28, 28), 29_034),
        ("scattering", (1, 28, 28), (17 * 7 * 7 + 1) * 10),
        ("lenet5", (1, 28, 28), 61_706),
        ("lenet5", (1, 32, 32), 61_706),
        ("mlp", (1, 28, 28), 785 * 200 + 201 * 200 + 201 * 10),
        # He et al.: stem 3*16*9, blocks of 2 * 9 * c^2 and projections, 2 per norm channel, head.
        ("resnet8", (3, 32, 32), 78_042),
        # At the size of ImageNet's photographs, docs/models.md.
        ("resnet8", (3, 224, 224), 78_042),
        ("lenet5", (3, 224, 224), 456 + 2416 + (16 * 53 * 53 + 1) * 120 + 121 * 84 + 85 * 10),
        ("dense-cnn", (3, 224, 224), 1216 + 12_832 + 2 * (16 + 32) + (32 * 56 * 56 + 1) * 10),
    ],
)
def test_parameter_counts_are_the_published_ones(
    name: str, shape: tuple[int, ...], expected: int
) -> None:
    assert parameters(built(name, shape)) == expected


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(IMAGE_CLASSIFIERS),
    channels=st.integers(1, 4),
    height=st.integers(12, 37),
    width=st.integers(12, 37),
    classes=st.integers(1, 12),
    batch=st.integers(1, 3),
)
def test_any_image_gives_a_row_of_logits(
    name: str, channels: int, height: int, width: int, classes: int, batch: int
) -> None:
    model = built(name, (channels, height, width), classes).eval()
    assert model(torch.rand(batch, channels, height, width)).shape == (batch, classes)


@given(features=st.integers(1, 40), hidden=st.lists(st.integers(1, 9), max_size=3))
@settings(max_examples=20, deadline=None)
def test_mlp_takes_rows_and_hidden_sizes(features: int, hidden: list[int]) -> None:
    model = built("mlp", (features,), 3, hidden=hidden)
    sizes = [features, *hidden, 3]
    assert parameters(model) == sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    assert model(torch.rand(5, features)).shape == (5, 3)


@pytest.mark.parametrize("name", IMAGE_CLASSIFIERS)
def test_one_stream_gives_one_model_and_leaves_the_global_generator_alone(name: str) -> None:
    before = torch.random.get_rng_state()
    first, again, other = built(name), built(name), built(name, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.training
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    key = "classifier.weight"
    assert not torch.equal(first.state_dict()[key], other.state_dict()[key])


@pytest.mark.parametrize(
    ("name", "options"),
    [("resnet8", {"width": 4}), ("dense-cnn", {})],
    ids=["resnet8", "dense-cnn"],
)
def test_group_norm_makes_samples_independent_of_their_batch(
    name: str, options: dict[str, Any]
) -> None:
    x = torch.rand(4, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    group, batch = (built(name, (1, 12, 12), norm=norm, **options) for norm in ("group", "batch"))
    torch.testing.assert_close(group(x)[:2], group(x[:2]))
    assert (batch(x)[:2] - batch(x[:2])).abs().max() > 1e-3


def test_dense_cnn_normalises_as_it_is_told() -> None:
    batch, group, none = (built("dense-cnn", norm=norm) for norm in ("batch", "group", "none"))
    assert batch.state_dict().keys() == built("dense-cnn").state_dict().keys()
    assert parameters(batch) == parameters(group) == parameters(none) + 2 * (16 + 32)
    assert not any(buffer.numel() for buffer in group.buffers())
    assert "norm1.running_mean" in batch.state_dict()
    assert {key.split(".")[0] for key in none.state_dict()} == {"conv1", "conv2", "classifier"}


def test_resnet8_width_scales_every_stage() -> None:
    assert built("resnet8", width=5).get_submodule("classifier").in_features == 20  # type: ignore[comparison-overlap]


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("lenet-5", (1, 28, 28), {}, "unknown model 'lenet-5': did you mean 'lenet5'?"),
        ("zzz", (1, 28, 28), {}, "valid here: dense-cnn, lenet5, mlp, "),
        ("resnet8", (1, 28, 28), {"nrom": "group"}, "did you mean 'resnet8.norm'?"),
        ("resnet8", (1, 28, 28), {"norm": "layer"}, "'resnet8.norm' is \"layer\""),
        ("dense-cnn", (1, 28, 28), {"norm": "layer"}, "'dense-cnn.norm' is \"layer\""),
        ("scattering", (1, 7, 28), {}, "expected at least 8x8"),
        ("scattering", (1, 28, 28), {"order": 3}, "'scattering.order' is 3"),
        ("scattering", (1, 8, 28), {"pool": 9}, "'scattering.pool' is 9: expected at most"),
        ("random-filters", (1, 4, 28), {}, "expected at least 5x5"),
        ("random-filters", (1, 8, 28), {"pool": 9}, "'random-filters.pool' is 9: expected at most"),
        ("mlp", (1, 28, 28), {"hidden": [3, 0]}, "'mlp.hidden[1]' is 0"),
        ("lenet5", (1, 28, 28), {"width": 3}, "unknown key 'lenet5.width'"),
        ("lenet5", (1, 11, 40), {}, "expected at least 12x12"),
        ("dense-cnn", (1, 3, 3), {}, "expected at least 4x4"),
        ("resnet8", (13,), {}, "for rows of features use 'mlp'"),
    ],
)
def test_misfits_are_named(
    name: str, shape: tuple[int, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        built(name, shape, **options)


@pytest.mark.parametrize(
    ("name", "side"), [("lenet5", 12), ("dense-cnn", 4), ("resnet8", 4), ("scattering", 8)]
)
def test_the_smallest_image_named_in_the_error_works(name: str, side: int) -> None:
    model = built(name, (1, side, side))
    assert model(torch.rand(2, 1, side, side)).isfinite().all()
