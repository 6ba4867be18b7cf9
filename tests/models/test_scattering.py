import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedkd import models
from fedkd.config import ModelSpec
from fedkd.models.fixed.scattering import Scattering, ScatteringOptions


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(shape: tuple[int, ...] = (1, 28, 28), **options: Any) -> nn.Module:
    spec = ModelSpec.model_validate({"name": "scattering", **options})
    return models.build(spec, shape=shape, classes=10, generator=generator())


def front(**options: Any) -> Scattering:
    return Scattering(ScatteringOptions(**options))


def moduli(x: Tensor, scale: int = 0, **options: Any) -> Tensor:
    """|x * psi| of one image (H, W), by orientation: (orientations, H, W)."""
    return front(**options)._moduli(x[None, None], scale)[0]


@settings(max_examples=25, deadline=None)
@given(
    channels=st.integers(1, 4),
    height=st.integers(8, 33),
    width=st.integers(8, 33),
    scales=st.integers(1, 4),
    orientations=st.integers(1, 5),
    order=st.sampled_from([1, 2]),
    pool=st.integers(1, 8),
)
def test_any_image_and_any_options_give_finite_logits(
    channels: int, height: int, width: int, **options: int
) -> None:
    model = built((channels, height, width), **options)
    assert model(torch.rand(2, channels, height, width)).isfinite().all()


def test_only_the_linear_layer_is_learnt_and_crosses_the_wire() -> None:
    model = built()
    names = ["classifier.weight", "classifier.bias"]
    assert list(model.state_dict()) == [name for name, _ in model.named_parameters()] == names
    assert len(list(model.buffers())) == 2
    other = copy.deepcopy(model)
    other.load_state_dict(model.state_dict())
    x = torch.rand(3, 1, 28, 28, generator=generator())
    assert torch.equal(model(x), other(x))
    assert torch.equal(model(x), built()(x))


def test_paths_of_both_orders_are_counted() -> None:
    for order, paths in ((1, 1 + 3 * 4), (2, 1 + 3 * 4 + 3 * 16)):
        transform = front(scales=3, orientations=4, order=order, pool=2)
        assert transform.paths == paths
        assert transform(torch.rand(2, 3, 16, 16)).shape == (2, 3 * paths * 4)


@pytest.mark.parametrize("scale", [0, 1, 2])
def test_wavelets_see_no_constant_and_each_its_own_wave(scale: int) -> None:
    assert moduli(torch.full((40, 40), 0.7), scale, scales=3).max() < 1e-5
    along = torch.arange(40.0)
    frequency = 0.75 * math.pi / 2**scale
    for number in range(8):
        angle = math.pi * number / 8
        wave = (frequency * (math.cos(angle) * along + math.sin(angle) * along[:, None])).cos()
        at_centre = moduli(wave, scale, scales=3)[:, 20, 20]
        assert int(at_centre.argmax()) == number
        others = [moduli(wave, other, scales=3)[number, 20, 20] for other in {0, 1, 2} - {scale}]
        assert at_centre[number] > 1.5 * max(others)


def test_a_turned_image_gives_turned_maps() -> None:
    x = torch.rand(20, 20, generator=generator())
    for scale in (0, 1):
        turned = moduli(x.rot90(dims=(0, 1)), scale)
        torch.testing.assert_close(
            turned, moduli(x, scale).roll(4, dims=0).rot90(dims=(1, 2)), rtol=1e-4, atol=1e-6
        )


def test_a_path_of_order_two_is_two_convolutions_written_out() -> None:
    transform = front(orientations=3, order=2)
    x = torch.rand(1, 1, 13, 11, generator=generator())

    def modulus(image: Tensor, scale: int, orientation: int) -> Tensor:
        filters = transform.get_buffer(f"filters{scale}").double()
        wavelet = torch.complex(filters[orientation, 0], filters[orientation + 3, 0])
        radius, (height, width) = len(wavelet) // 2, image.shape
        rows = torch.arange(-radius, radius + 1)
        found = image.new_zeros(height, width)
        for i in range(height):
            for j in range(width):
                near = image[(i + rows).clamp(0, height - 1)][:, (j + rows).clamp(0, width - 1)]
                found[i, j] = (near * wavelet).sum().abs()
        return found

    second = modulus(modulus(x[0, 0].double(), 0, 2), 1, 1)
    expected = (nn.functional.adaptive_avg_pool2d(second[None], 7)[0].flatten() + 0.01).log()
    # Behind the image and both scales' orientations: three of orientation 0, three of 1, then 2.
    path = 1 + 2 * 3 + 2 * 3 + 1
    found = transform(x).reshape(-1, 49)[path]
    # All features of a sample are centred and scaled alike: differences keep their ratios.
    found, expected = found - found[0], (expected - expected[0]).float()
    scale = found[1] / expected[1]
    torch.testing.assert_close(found, expected * scale, rtol=1e-3, atol=1e-4)


def test_features_have_one_norm_whatever_the_sample() -> None:
    transform = front()
    x = torch.rand(4, 3, 28, 28, generator=generator())
    x[1] *= 1000
    features = transform(x)
    torch.testing.assert_close(features.mean(dim=1), torch.zeros(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(4))
    assert transform(torch.zeros(1, 1, 8, 8)).isfinite().all()
    assert transform(-x).isfinite().all()


def test_samples_do_not_touch_each_other() -> None:
    model, x = built(), torch.rand(4, 1, 28, 28, generator=generator())
    torch.testing.assert_close(model(x)[:2], model(x[:2]))


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_a_generator_gets_a_finite_gradient_even_from_a_flat_image(level: float) -> None:
    x = torch.full((2, 1, 28, 28), level, requires_grad=True)
    built()(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
