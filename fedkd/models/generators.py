"""The generators of data-free distillation: latent vectors in, images or features out."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedkd.errors import ConfigError
from fedkd.rng import torch_default


def build_generator(
    shape: tuple[int, ...],
    *,
    latent: int = 256,
    width: int = 64,
    classes: int | None = None,
    generator: torch.Generator,
) -> "ImageGenerator":
    """Build and initialise an image generator, in training mode.

    Args:
        shape: of one image, (channels, height, width).
        latent: length of z.
        width: channels before the last layer; twice as many before those. 64 as published.
        classes: conditions the images on a label out of so many; None: unconditional.
        generator: determines the initial weights.

    Raises:
        ConfigError: the shape is not that of an image.
    """
    if len(shape) != 3:
        raise ConfigError(
            f"data-free distillation cannot generate inputs of shape {shape}: expected images "
            "(channels, height, width); for rows of features choose a method that uses public data"
        )
    channels, height, width_ = shape
    with torch_default(generator):
        return ImageGenerator(
            (channels, height, width_), latent=latent, width=width, classes=classes
        )


class ImageGenerator(nn.Module):
    """The generator of DENSE, doubling a feature map of a quarter of the sides twice.

    Zhang et al. 2022, arXiv:2112.12371. Sides that four does not divide are rounded up and cropped.
    """

    def __init__(
        self, shape: tuple[int, int, int], *, latent: int, width: int, classes: int | None
    ) -> None:
        super().__init__()
        channels, self.height, self.width = shape
        self.base = (2 * width, -(-self.height // 4), -(-self.width // 4))
        self.label = None if classes is None else nn.Embedding(classes, latent)
        self.project = nn.Linear(latent, self.base[0] * self.base[1] * self.base[2])
        self.norm0 = nn.BatchNorm2d(2 * width)
        self.conv1 = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(2 * width)
        self.conv2 = nn.Conv2d(2 * width, width, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latent vectors (N, latent), labels (N,) -> images (N, channels, height, width).

        A conditional generator multiplies z by the label's embedding; an unconditional one ignores
        the label.
        """
        if self.label is not None:
            if y is None:
                raise ValueError("labels are missing: this generator is conditional on a class")
            z = z * self.label(y)
        x = self.norm0(self.project(z).unflatten(1, self.base))
        # The convolutions follow their input's layout; on two cores this one is 1.6 times as fast.
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.leaky_relu(self.norm1(self.conv1(_double(x))), 0.2)
        x = F.leaky_relu(self.norm2(self.conv2(_double(x))), 0.2)
        return torch.sigmoid(self.conv3(x))[..., : self.height, : self.width]


def build_feature_generator(
    width: int, *, classes: int, latent: int, hidden: int, generator: torch.Generator
) -> "FeatureGenerator":
    """Build and initialise a generator of features, in training mode.

    Args:
        width: of the features, F.
        classes: how many labels there are.
        latent: length of the noise.
        hidden: units of the hidden layer.
        generator: determines the initial weights.
    """
    with torch_default(generator):
        return FeatureGenerator(width, classes=classes, latent=latent, hidden=hidden)


class FeatureGenerator(nn.Module):
    """The generator of FedGen, from noise and a label to what enters a model's last layer.

    Zhu et al. 2021, arXiv:2105.10056: a hidden layer with BatchNorm and ReLU, then a linear one.
    """

    def __init__(self, width: int, *, classes: int, latent: int, hidden: int) -> None:
        super().__init__()
        self.classes, self.latent = classes, latent
        self.hidden = nn.Linear(latent + classes, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.features = nn.Linear(hidden, width)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Noise (N, latent), standard normal, and labels (N,) -> features (N, F)."""
        known = F.one_hot(y, self.classes).to(z.dtype)
        x: Tensor = self.features(F.relu(self.norm(self.hidden(torch.cat([z, known], dim=1)))))
        return x


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
