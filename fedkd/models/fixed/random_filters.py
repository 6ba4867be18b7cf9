"""A bank of random filters, which is fixed, and a linear layer, which is fitted.

Features that all parties compute alike from one seed, without a look at data: what a closed form is
fitted on. Random convolutions as features: Jarrett et al. 2009; Saxe et al. 2011.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from fedkd.config import Frozen
from fedkd.errors import ConfigError
from fedkd.models.classifiers import image

_SIDE = 5


class RandomFiltersOptions(Frozen):
    """Options of `random-filters`."""

    filters: PositiveInt = 24
    """Filters of 5x5, drawn when the model is built."""
    pool: int = Field(default=4, ge=1)
    """The side of the grid on which the responses are averaged."""


def random_filters(
    shape: tuple[int, ...], classes: int, options: RandomFiltersOptions
) -> nn.Module:
    """Random features and a linear layer: filters * pool^2 features, 384 as it stands."""
    channels, height, width = image("random-filters", shape, minimum=_SIDE)
    if options.pool > min(height, width):
        raise ConfigError(
            f"'random-filters.pool' is {options.pool}: expected at most the image's side, "
            f"{min(height, width)}"
        )
    front = RandomFilters(channels, options)
    units = options.filters * options.pool**2
    return nn.Sequential(OrderedDict(features=front, classifier=nn.Linear(units, classes)))


class RandomFilters(nn.Module):
    """Random 5x5 filters of mean 0 and norm 1, ReLU, averages over a grid, norm 1 per sample.

    (N, C, H, W) -> (N, filters * pool^2), at least 0. The square root before the norm evens out
    what is bright and what is dark. Nothing is learnt, and no data is looked at.
    """

    filters: Tensor

    def __init__(self, channels: int, options: RandomFiltersOptions) -> None:
        super().__init__()
        self.pool = options.pool
        drawn = torch.randn(options.filters, channels, _SIDE, _SIDE)
        drawn = drawn - drawn.mean(dim=(1, 2, 3), keepdim=True)
        self.register_buffer("filters", F.normalize(drawn.flatten(1)).view_as(drawn))

    def forward(self, x: Tensor) -> Tensor:
        """Images to features."""
        responses = F.relu(F.conv2d(x, self.filters, padding=_SIDE // 2))
        pooled = F.adaptive_avg_pool2d(responses, self.pool).flatten(1)
        return F.normalize((pooled + 1e-6).sqrt())
