"""Classification and segmentation models of torchvision, by name."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fedkd import optional
from fedkd.errors import ConfigError
from fedkd.models.classifiers import image
from fedkd.names import choices

_COLOURS = 3
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    # Auxiliary classifiers learn only from a loss of their own.
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


def build(name: str, shape: tuple[int, ...], classes: int, options: Mapping[str, Any]) -> nn.Module:
    """A model of torchvision for images (C, H, W), by its own constructor, with random weights.

    One of segmentation answers logits (N, H, W, classes). The first convolution takes C channels; a
    vision transformer takes H x W, which its patches must divide. `options` are the constructor's.

    Raises:
        ConfigError: torchvision is not installed, or has no such model.
    """
    models = optional.load("torchvision", extra="vision").models
    dense = models.list_models(module=models.segmentation)
    names = [*models.list_models(module=models), *dense]
    if name not in names:
        raise ConfigError(
            f"unknown model 'torchvision/{name}': {choices(name, names, prefix='torchvision/')}"
        )
    channels, height, _ = image(f"torchvision/{name}", shape, minimum=1)
    own = {"image_size": height} if name.startswith("vit_") else _OPTIONS.get(name, {})
    if name in dense:
        own = {"weights_backbone": None}  # else they are fetched
    model: nn.Module = models.get_model(
        name, weights=None, num_classes=classes, **{**own, **options}
    )
    if channels != _COLOURS:
        _take_channels(model, channels)
    if name in dense:
        model.register_forward_hook(_channels_last)
    return model


def _channels_last(_model: nn.Module, _inputs: object, output: Mapping[str, Tensor]) -> Tensor:
    """What a segmentation model gives, {"out": (N, C, H, W), ...}, as an answer (N, H, W, C)."""
    return output["out"].movedim(1, -1)


def _take_channels(model: nn.Module, channels: int) -> None:
    """Replace the first convolution by one for another number of channels."""
    name, old = next(
        (name, each)
        for name, each in model.named_modules()
        if isinstance(each, nn.Conv2d) and each.in_channels == _COLOURS
    )
    new = nn.Conv2d(
        channels,
        old.out_channels,
        kernel_size=(old.kernel_size[0], old.kernel_size[1]),
        stride=(old.stride[0], old.stride[1]),
        padding=(int(old.padding[0]), int(old.padding[1])),
        bias=old.bias is not None,
    )
    model.set_submodule(name, new)
