"""A built-in model of several views of a record: an encoder for each, and features together."""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from fedkd.config import Frozen
from fedkd.errors import ConfigError


class FusionOptions(Frozen):
    """Options of `fusion`."""

    width: int = Field(default=64, ge=2)
    """How many features each view is encoded as."""


class Fusion(nn.Module):
    """Named views, each (N, *shape) -> logits (N, classes): late fusion by concatenated features.

    Raises:
        ConfigError: a view holds integers to look up, which need a model of one's own.
    """

    def __init__(self, views: Mapping[str, Tensor], classes: int, options: FusionOptions) -> None:
        super().__init__()
        for name, few in views.items():
            if not few.is_floating_point():
                raise ConfigError(
                    f"model 'fusion' takes images and numbers, and view {name!r} holds integers to "
                    "look up: leave it out of the views, or name a model of your own, "
                    "'package.module:Class'"
                )
        self._names = tuple(views)
        self.encoders = nn.ModuleList(_encoder(each, options.width) for each in views.values())
        self.classifier = nn.Linear(options.width * len(views), classes)

    def forward(self, **views: Tensor) -> Tensor:
        """Logits of the views, which are found by name."""
        pairs = zip(self.encoders, self._names, strict=True)
        features = [encode(views[name]) for encode, name in pairs]
        logits: Tensor = self.classifier(torch.cat(features, dim=1))
        return logits


def _encoder(few: Tensor, width: int) -> nn.Module:
    """Of images (N, C, H, W) two strided convolutions and a mean; of all else one layer."""
    if few.dim() == 4:
        return nn.Sequential(
            nn.Conv2d(few.shape[1], width // 2, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
    numbers = few[0].numel()
    one_row = nn.Flatten() if few.dim() > 1 else nn.Unflatten(0, (-1, 1))
    return nn.Sequential(one_row, nn.Linear(numbers, width), nn.ReLU())
