import pytest
import torch
from torch import nn

from fedkd import models
from fedkd.config import ModelSpec
from fedkd.errors import ConfigError
from fedkd.models.layers import LOGITS, forward_with, inspect_layers

SHAPE = (1, 12, 12)


def build(name, **options):
    generator = torch.Generator().manual_seed(0)
    spec = ModelSpec.model_validate({"name": name, **options})
    return models.build(spec, shape=SHAPE, classes=3, generator=generator).eval()


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


def test_what_is_shown_is_what_the_layers_give_and_nothing_stays():
    model, x = build("dense-cnn"), torch.rand(4, *SHAPE)
    seen = forward_with(model, x, ["pool1", "flatten", "pool1"])
    x = x.to(memory_format=torch.channels_last)  # as `call.answer` lays it out
    first = model[:4](x)
    assert torch.equal(seen["pool1"], first)
    assert torch.equal(seen["flatten"], model[4:9](first))
    assert torch.equal(seen[LOGITS], model(x))
    assert list(seen) == [LOGITS, "pool1", "flatten"]
    assert hooks(model) == 0


def test_a_gradient_reaches_the_layers_that_are_shown():
    model = build("mlp", hidden=[5, 4]).train()
    forward_with(model, torch.rand(4, *SHAPE), ["relu1"])["relu1"].sum().backward()
    assert model.hidden1.weight.grad.abs().sum() > 0
    assert model.hidden2.weight.grad is None


def test_hooks_are_gone_after_an_exception_too():
    model = build("mlp")
    with pytest.raises(RuntimeError):
        forward_with(model, torch.rand(4, 7), ["relu1"])
    assert hooks(model) == 0


def test_a_misspelt_layer_names_the_nearest_and_all_valid_ones():
    expected = "unknown layer 'relu_1': did you mean 'relu1'. valid here: flatten, hidden1, relu1"
    with pytest.raises(ConfigError, match=expected):
        forward_with(build("mlp"), torch.rand(4, *SHAPE), ["relu_1"])
    with pytest.raises(ConfigError, match=expected):
        inspect_layers(build("mlp"), SHAPE).shape("relu_1")


class Odd(nn.Module):
    """A layer that is used twice, one that is overwritten, one that gives no tensor."""

    def __init__(self):
        super().__init__()
        self.twice, self.idle = nn.Tanh(), nn.Tanh()
        self.conv, self.inplace = nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True)
        self.pair = Pair()
        self.head = nn.Linear(200, 3)

    def forward(self, x):
        x, _ = self.pair(self.inplace(self.conv(self.twice(self.twice(x)))))
        return self.head(x.flatten(1))


class Pair(nn.Module):
    def forward(self, x):
        return x, x


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ("twice", "called 2 times"),
        ("idle", "called 0 times"),
        ("conv", "overwritten by a later layer"),
        ("pair", "gives 'tuple'"),
    ],
)
def test_a_layer_that_cannot_be_looked_at_says_why(layer, reason):
    model = Odd()
    with pytest.raises(ConfigError, match=rf"{layer}.*{reason}"):
        forward_with(model, torch.rand(2, *SHAPE), [layer])
    layers = inspect_layers(model, SHAPE)
    with pytest.raises(ConfigError, match=reason):
        layers.shape(layer)
    assert layers.shape("inplace") == (2, 10, 10)
    assert layers.features == layers.maps == "inplace"


@pytest.mark.parametrize(
    ("name", "features", "maps"),
    [
        ("mlp", "relu2", None),
        ("lenet5", "relu4", "relu2"),  # pool2 gives maps of one place
        ("dense-cnn", "flatten", "pool2"),
        ("resnet8", "flatten", "stage3"),
        ("scattering", "scattering", None),
    ],
)
def test_by_default_the_last_layer_before_the_classifier_is_looked_at(name, features, maps):
    options = {"pool": 4} if name == "scattering" else {}
    model = build(name, **options).train()
    layers = inspect_layers(model, SHAPE)
    assert (layers.features, layers.maps) == (features, maps)
    assert layers.shapes[LOGITS] == (3,)
    assert layers.entered("classifier") == layers.shape(features)
    assert all(module.training for module in model.modules())
    assert hooks(model) == 0
