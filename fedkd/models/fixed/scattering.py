"""A wavelet scattering front end, which is fixed, and a linear layer, which is trained.

Made for differential privacy: noise that is spread over few parameters on good features beats a
network that must learn its features through noise. Tramer & Boneh 2021, arXiv:2011.11660.
"""

import math
from collections import OrderedDict
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from fedkd.config import Frozen
from fedkd.errors import ConfigError
from fedkd.models.classifiers import image

_FLOOR = 0.01
"""What is added before the logarithm: far below a modulus that means something."""


class ScatteringOptions(Frozen):
    """Options of `scattering`."""

    scales: int = Field(default=2, ge=1, le=4)
    """Octaves of wavelets, from the finest."""
    orientations: PositiveInt = 8
    """Directions in half a turn."""
    order: Literal[1, 2] = 1
    """How many wavelets follow one another."""
    pool: PositiveInt = 7
    """The side of the grid on which the features are averaged."""


def scattering(shape: tuple[int, ...], classes: int, options: ScatteringOptions) -> nn.Module:
    """Scattering features and a linear layer: 8,340 parameters at 1x28x28 and ten classes."""
    channels, height, width = image("scattering", shape, minimum=8)
    if options.pool > min(height, width):
        raise ConfigError(
            f"'scattering.pool' is {options.pool}: expected at most the image's side, "
            f"{min(height, width)}"
        )
    front = Scattering(options)
    units = channels * front.paths * options.pool**2
    return nn.Sequential(OrderedDict(scattering=front, classifier=nn.Linear(units, classes)))


class Scattering(nn.Module):
    """The scattering transform, Bruna & Mallat 2013, arXiv:1203.1513, normalised per sample.

    (N, C, H, W) -> (N, C * paths * pool^2): the image, the moduli |x * psi| of its convolutions
    with Morlet wavelets and, in order 2, of those with every coarser wavelet, all averaged over a
    grid. Their logarithms are centred and scaled to L2 norm 1, sample by sample: what a gradient is
    clipped to then means the same for all, and learning rates are near 10. Nothing is learnt, and
    no data is looked at.
    """

    def __init__(self, options: ScatteringOptions) -> None:
        super().__init__()
        self.scales, self.order, self.pool = options.scales, options.order, options.pool
        scales, orientations = options.scales, options.orientations
        for scale in range(scales):
            # Not persistent: what is fixed need not cross the wire.
            filters = _morlets(scale, orientations)
            self.register_buffer(f"filters{scale}", filters, persistent=False)
        second = orientations**2 * scales * (scales - 1) // 2 if options.order == 2 else 0
        self.paths = 1 + scales * orientations + second

    def forward(self, x: Tensor) -> Tensor:
        """Images to features."""
        n, channels, height, width = x.shape
        planes = x.reshape(n * channels, 1, height, width)
        first = [self._moduli(planes, scale) for scale in range(self.scales)]
        maps = [planes, *first]
        if self.order == 2:
            maps += [
                self._moduli(first[fine], coarse)
                for coarse in range(self.scales)
                for fine in range(coarse)
            ]
        pooled = torch.cat([F.adaptive_avg_pool2d(part, self.pool) for part in maps], dim=1)
        logs = torch.log(pooled.clamp(min=0) + _FLOOR).reshape(n, -1)
        return F.normalize(logs - logs.mean(dim=1, keepdim=True))

    def _moduli(self, maps: Tensor, scale: int) -> Tensor:
        """(N, P, H, W) to |map * psi| for each map and orientation: (N, P * orientations, H, W)."""
        n, _, height, width = maps.shape
        filters = self.get_buffer(f"filters{scale}")
        margin = filters.shape[-1] // 2
        flat = F.pad(maps.reshape(-1, 1, height, width), (margin,) * 4, mode="replicate")
        real, imaginary = F.conv2d(flat, filters).chunk(2, dim=1)
        # The square root has no slope at 0, and a generator's images are differentiated.
        moduli = (real.square() + imaginary.square() + 1e-12).sqrt()
        return moduli.reshape(n, -1, height, width)


def _morlets(scale: int, orientations: int) -> Tensor:
    """Morlet wavelets of mean 0, real parts first, then imaginary: (2 orientations, 1, S, S)."""
    sigma, frequency = 0.8 * 2**scale, 0.75 * math.pi / 2**scale
    radius = math.ceil(2.5 * sigma)
    along = torch.arange(-radius, radius + 1, dtype=torch.float64)
    rows, columns = torch.meshgrid(along, along, indexing="ij")
    waves = []
    for number in range(orientations):
        angle = math.pi * number / orientations
        u = columns * math.cos(angle) + rows * math.sin(angle)
        v = rows * math.cos(angle) - columns * math.sin(angle)
        # Longer across than along the wave, the more so the more orientations there are.
        bump = torch.exp(-(u.square() + (4 / orientations * v).square()) / (2 * sigma**2))
        wave = bump * torch.exp(1j * frequency * u)
        wave = wave - bump * (wave.sum() / bump.sum())
        waves.append(wave / wave.abs().sum())
    stacked = torch.stack(waves)
    return torch.cat([stacked.real, stacked.imag]).unsqueeze(1).float()
