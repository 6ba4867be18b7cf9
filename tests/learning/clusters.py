"""Rows in clusters and models that learn them in a moment, for the tests of ways to learn."""

import torch
from torch import Tensor, nn

from fedkd import models
from fedkd.config import ModelSpec
from fedkd.data.types import Samples

FEATURES = 6
CLASSES = 3


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(count: int = 60, seed: int = 1, spread: float = 1.0) -> Samples:
    """Three Gaussian clusters, the same for every seed."""
    centres = 2 * torch.randn(CLASSES, FEATURES, generator=generator(0))
    draws = generator(seed)
    y = torch.randint(CLASSES, (count,), generator=draws)
    return Samples(centres[y] + spread * torch.randn(count, FEATURES, generator=draws), y)


def net(seed: int = 0, *hidden: int) -> nn.Module:
    spec = ModelSpec(name="mlp", hidden=list(hidden or (8,)))
    return models.build(spec, shape=(FEATURES,), classes=CLASSES, generator=generator(seed))


def normed(seed: int = 0) -> nn.Module:
    """A network with BatchNorm, which training mode changes."""
    model = nn.Sequential(
        nn.Linear(FEATURES, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, CLASSES)
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=generator(seed))
    return model


def state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of everything that a model holds."""
    return {key: value.clone() for key, value in model.state_dict().items()}


def unchanged(model: nn.Module, before: dict[str, Tensor]) -> bool:
    """Bit for bit."""
    return all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
