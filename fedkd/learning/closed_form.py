"""What a linear model is fitted on in closed form: features of a fixed front, and their moments."""

from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedkd.data.types import Samples
from fedkd.errors import ConfigError
from fedkd.knowledge.moments import Moments, moments
from fedkd.learning.evaluate import evaluating
from fedkd.learning.teacher_statistics import feature_width, with_features
from fedkd.models import probes
from fedkd.models.heads import head, logits_of, sizes
from fedkd.privacy import mechanisms
from fedkd.rows import Rows, batches, device_of, one

_BATCH = 256
_TOGETHER = 8
"""Batches whose products float32 sums in one go, before they are added in float64."""
_LEAST = 1e-6
"""The least share of the largest variance that a component is scaled by."""


@dataclass(frozen=True)
class Basis:
    """A public change of basis before the sums: f -> (f - mean) axes.

    It is linear, so that what is fitted in it folds back into the model's own last layer.
    """

    mean: Tensor
    """(F,), float64."""
    axes: Tensor
    """(F, K), float64."""

    @classmethod
    def of(cls, features: Tensor, *, components: int, whitening: float) -> "Basis":
        """The leading principal components of public features (N, F), of median norm 1.

        Args:
            features: of the proxy set.
            components: K; at most min(N - 1, F).
            whitening: from 0, as the components are, to 1, where all have the same variance.

        Raises:
            ValueError: there are not so many components.
        """
        rows, width = features.shape
        if not 1 <= components <= min(rows - 1, width):
            raise ValueError(f"Expected 1 <= {components} <= {min(rows - 1, width)} components.")
        mean = features.double().mean(dim=0)
        centred = features.double() - mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / rows)
        values, vectors = values.flip(0)[:components], vectors.flip(1)[:, :components]
        scale = values.clamp(min=_LEAST * float(values[0])) ** (-whitening / 2)
        axes = vectors * scale
        return cls(mean, axes / (centred @ axes).norm(dim=1).median())


def check_last_layer(
    model: nn.Module, shape: tuple[int, ...], classes: int, like: Rows | None = None
) -> None:
    """Refuse a model whose logits are not one linear layer of its features.

    Args:
        model: is asked in evaluation mode.
        shape: of one input.
        classes: C.
        like: public inputs (N, *shape) that it takes; None: drawn ones.

    Raises:
        ConfigError: it has no such layer, or does something after it.
    """
    layer = head(model)
    with evaluating(model), torch.no_grad():
        logits, features = with_features(model, probes.inputs(model, shape, like))
        fits = sizes(layer)[1] == classes and layer.bias is not None
        if not (fits and torch.allclose(logits, logits_of(layer, features))):
            raise ConfigError(
                f"model {type(model).__name__!r} does not end in a linear layer with {classes} "
                "outputs and a bias, and that layer alone is fitted in closed form"
            )


def features_of(model: nn.Module, x: Rows) -> Tensor:
    """What enters the model's head in evaluation mode: N inputs -> (N, F), where they are."""
    with evaluating(model), torch.no_grad():
        parts = map(one, batches(x, _BATCH, exact=True))
        return torch.cat([_full(model, batch)[: len(batch)].to(device_of(x)) for batch in parts])


def _full(model: nn.Module, batch: Tensor) -> Tensor:
    """Features of a batch filled up with zeros, since a smaller one may round otherwise.

    A record's features are then the same bits in whoever's data it stands.
    """
    missing = _BATCH - len(batch)
    filled = F.pad(batch, [0, 0] * (batch.dim() - 1) + [0, missing])
    return with_features(model, filled)[1]


def summed(
    model: nn.Module,
    samples: Samples,
    classes: int,
    *,
    basis: Basis | None = None,
    clip: float | None = None,
    intercept: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> Moments:
    """The moments of phi = (features, intercept) over samples; memory for one batch at a time.

    Args:
        model: has the features.
        samples: N of them.
        classes: C.
        basis: what the features are first seen in.
        clip: the L2 norm that features are then clipped to; None leaves them.
        intercept: the constant beside the features, >= 0.
        dtype: as in `moments`.
    """
    width = 1 + (feature_width(model) if basis is None else basis.axes.shape[1])
    found = Moments(torch.zeros(width, width).double(), torch.zeros(width, classes).double())
    inputs, start = map(one, batches(samples.x, _BATCH, exact=True)), 0
    while few := list(islice(inputs, 1 if dtype == torch.float64 else _TOGETHER)):
        phi = torch.cat([features_of(model, x) for x in few]).double()
        y = samples.y[start : start + len(phi)]
        start += len(phi)
        if basis is not None:
            phi = (phi - basis.mean) @ basis.axes
        if clip is not None:
            phi = mechanisms.clip(phi, clip)
        more = moments(F.pad(phi, (0, 1), value=intercept), y, classes, dtype=dtype)
        found.features.add_(more.features)
        found.labels.add_(more.labels)
    return found


def set_classifier(
    model: nn.Module, weights: Tensor, *, basis: Basis | None = None, intercept: float = 1.0
) -> None:
    """Give the model's head the fitted weights (K + 1, C), folded back to features."""
    weight, bias = weights[:-1], intercept * weights[-1]
    if basis is not None:
        weight = basis.axes @ weight
        bias = bias - basis.mean @ weight
    layer = head(model)
    if layer.bias is None:
        raise ValueError("Expected a head with a bias.")
    with torch.no_grad():
        layer.weight.flatten(1).copy_(weight.T)
        layer.bias.copy_(bias)
