import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.errors import ConfigError
from fedkd.models import build_generator


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_published_network_has_the_published_size() -> None:
    model = build_generator((1, 28, 28), generator=generator())
    # Linear 256 -> 128*7*7; 128 -> 128 -> 64 -> 1 by 3x3, all with biases; three BatchNorms.
    expected = 257 * 6272 + 1153 * 128 + 1153 * 64 + 577 + 2 * (128 + 128 + 64)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


@settings(max_examples=25, deadline=None)
@given(
    channels=st.integers(1, 4),
    height=st.integers(1, 33),
    width=st.integers(1, 33),
    classes=st.none() | st.integers(1, 5),
)
def test_any_image_shape_comes_out_in_the_unit_interval(
    channels: int, height: int, width: int, classes: int | None
) -> None:
    shape = (channels, height, width)
    model = build_generator(shape, latent=8, width=4, classes=classes, generator=generator())
    y = torch.zeros(3, dtype=torch.int64) if classes else None
    images = model(torch.randn(3, 8, generator=generator()), y)
    assert images.shape == (3, *shape)
    assert ((images >= 0) & (images <= 1)).all()


def test_labels_change_the_images_of_a_conditional_generator_only() -> None:
    z = torch.randn(6, 8, generator=generator(1))
    zeros, ones = torch.zeros(6, dtype=torch.int64), torch.ones(6, dtype=torch.int64)
    conditional, plain = (
        build_generator((1, 8, 8), latent=8, width=4, classes=classes, generator=generator()).eval()
        for classes in (2, None)
    )
    assert (conditional(z, zeros) - conditional(z, ones)).abs().max() > 1e-3
    assert torch.equal(plain(z, zeros), plain(z, ones))
    assert torch.equal(plain(z), plain(z, ones))
    with pytest.raises(ValueError, match="labels are missing"):
        conditional(z)


def test_one_stream_gives_one_generator() -> None:
    states = [
        build_generator((1, 8, 8), latent=8, width=4, generator=generator(seed)).state_dict()
        for seed in (0, 0, 1)
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["conv1.weight"], states[2]["conv1.weight"])


def test_every_parameter_learns() -> None:
    model = build_generator((2, 5, 7), latent=8, width=4, classes=3, generator=generator())
    y = torch.tensor([0, 1, 2, 0])
    images = model(torch.randn(4, 8, generator=generator()), y)
    images.square().sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # BatchNorm takes a convolution's bias out again, up to rounding; every other one must move.
    assert not [name for name in silent if not name.endswith("bias")]


def test_rows_of_features_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"inputs of shape \(13,\): expected images"):
        build_generator((13,), generator=generator())
