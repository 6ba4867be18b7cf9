"""A model in two parts: together they are the model."""

import pytest
import torch
from torch import nn

from fedkd import models
from fedkd.config import ModelSpec
from fedkd.errors import ConfigError
from fedkd.models.split import split

SHAPE, CLASSES = (1, 12, 12), 4


def built(name: str) -> nn.Module:
    draws = torch.Generator().manual_seed(0)
    return models.build(ModelSpec(name=name), shape=SHAPE, classes=CLASSES, generator=draws)


@pytest.mark.parametrize("name", ["mlp", "lenet5", "dense-cnn", "resnet8"])
def test_back_after_front_is_the_model_at_every_layer(name: str) -> None:
    model = built(name).eval()
    x = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    layers = [layer for layer, _ in model.named_children()]
    for layer in layers[:-1]:
        front, back = split(model, layer)
        assert torch.equal(back(front(x)), model(x))
        parts = [*front.named_parameters(), *back.named_parameters()]
        assert all(model.get_parameter(key) is parameter for key, parameter in parts)
        assert len(parts) == len(list(model.parameters()))
        assert list(front._modules)[-1] == layer


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("pool3", "unknown layer 'pool3': did you mean 'pool2'? valid here: conv1, norm1, relu1, "),
        (None, "unknown layer None: valid here: conv1, norm1, relu1, pool1, conv2, norm2, relu2, "),
        ("classifier", "unknown layer 'classifier': valid here: conv1, "),
        ("0", "unknown layer '0': valid here: conv1, "),
    ],
)
def test_a_misspelt_layer_lists_the_valid_ones(layer: str | None, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        split(built("dense-cnn"), layer)
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("pool2, flatten")


class Own(nn.Sequential):
    """A chain of layers that is called in another order."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize("model", [nn.ModuleList([nn.Flatten(), nn.Linear(2, 2)]), Own(nn.ReLU())])
def test_what_is_no_chain_of_layers_cannot_be_cut(model: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"cannot be cut at a layer: expected a torch.nn.Sequent"):
        split(model, "0")
