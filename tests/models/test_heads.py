"""The head of any model: a linear layer, or a 1x1 convolution where a model says so."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from fedkd import models
from fedkd.config import ModelSpec
from fedkd.data.types import Samples
from fedkd.errors import ConfigError
from fedkd.knowledge.moments import ridge
from fedkd.learning import closed_form
from fedkd.learning.teacher_statistics import feature_width, with_features
from fedkd.models import heads
from fedkd.models.layers import inspect_layers

SHAPE, CLASSES = (2, 8, 8), 3


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def convolutional() -> nn.Module:
    """No linear layer: a 1x1 convolution's maps are averaged, as in a fully convolutional net."""
    torch.manual_seed(0)
    layers = OrderedDict(
        conv=nn.Conv2d(2, 5, 3),
        relu=nn.ReLU(),
        classifier=nn.Conv2d(5, CLASSES, 1),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
    )
    return nn.Sequential(layers)


class Squeezing(nn.Module):
    """Linear layers inside, and a block `classifier` whose last layer is a 1x1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(2, 2)
        self.classifier = nn.Sequential(nn.Dropout(0.1), nn.Conv2d(2, CLASSES, 1), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.gate(x.mean(dim=(2, 3))).sigmoid()
        out: torch.Tensor = self.classifier(x * gate[..., None, None]).mean(dim=(2, 3))
        return out


@pytest.mark.parametrize("name", ["mlp", "lenet5", "dense-cnn", "resnet8"])
def test_the_head_of_a_built_in_is_its_classifier(name: str) -> None:
    shape = (1, 16, 16)
    model = models.build(ModelSpec(name=name), shape=shape, classes=4, generator=generator())
    assert models.head(model) is model.get_submodule("classifier")


def test_a_convolution_is_the_head_where_the_model_calls_it_so() -> None:
    model = Squeezing().eval()
    assert models.head(model) is model.classifier[1]
    assert heads.sizes(models.head(model)) == (2, CLASSES)
    mixing = nn.Sequential(nn.Flatten(), nn.Linear(8, 8), nn.Unflatten(1, (8, 1, 1)))
    mixing.append(nn.Conv2d(8, 8, 1))
    assert models.head(mixing) is mixing[1]  # it only mixes channels


def test_features_of_a_convolutional_head_give_its_logits() -> None:
    model, x = convolutional().eval(), torch.randn(6, *SHAPE, generator=generator())
    logits, features = with_features(model, x)
    assert features.shape == (6, feature_width(model)) == (6, 5)
    torch.testing.assert_close(heads.logits_of(models.head(model), features), logits)
    assert inspect_layers(model, SHAPE).features == "relu"


def test_a_convolutional_head_is_fitted_in_closed_form() -> None:
    model, draws = convolutional(), generator()
    data = Samples(torch.randn(40, *SHAPE, generator=draws), torch.arange(40) % CLASSES)
    closed_form.check_last_layer(model, SHAPE, CLASSES)
    found = ridge(closed_form.summed(model, data, CLASSES), 1e-3)
    closed_form.set_classifier(model, found)
    logits, features = with_features(model.eval(), data.x)
    wanted = torch.cat([features, torch.ones(40, 1)], dim=1).double() @ found
    torch.testing.assert_close(logits.double(), wanted, rtol=1e-4, atol=1e-4)


def test_a_model_without_layers_has_no_head() -> None:
    with pytest.raises(ConfigError, match="'Flatten' has no linear layer"):
        models.head(nn.Flatten())
