"""A model cut in two at a layer."""

from collections import OrderedDict

from torch import nn

from fedkd.errors import ConfigError
from fedkd.names import unknown


def split(model: nn.Module, layer: str | None) -> tuple[nn.Sequential, nn.Sequential]:
    """The front of a sequential model, up to and with `layer`, and the back, all after it.

    Both share their modules with the model, and their tensors have the model's names.

    Args:
        model: an `nn.Sequential`, as the built-in classifiers are.
        layer: one of its children by name, but for the last.

    Raises:
        ConfigError: the model is no chain of layers, or has no such layer (the nearest and all
            valid ones are named).
    """
    if type(model).forward is not nn.Sequential.forward:
        raise ConfigError(
            f"model {type(model).__name__!r} cannot be cut at a layer: expected a "
            "torch.nn.Sequential, as the built-in models are"
        )
    layers = list(model.named_children())
    valid = [name for name, _ in layers[:-1]]
    if layer not in valid:
        raise ConfigError(unknown("layer", layer, valid))
    cut = valid.index(layer) + 1
    return nn.Sequential(OrderedDict(layers[:cut])), nn.Sequential(OrderedDict(layers[cut:]))
