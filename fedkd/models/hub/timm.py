"""Models of timm (PyTorch Image Models), by name."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from fedkd import optional
from fedkd.errors import ConfigError
from fedkd.models.classifiers import image
from fedkd.names import choices


def build(name: str, shape: tuple[int, ...], classes: int, options: Mapping[str, Any]) -> nn.Module:
    """A model of timm for images (C, H, W), with random weights.

    One that takes a single size of image takes H x W. `options` are those of `timm.create_model`.

    Raises:
        ConfigError: timm is not installed, or has no such model.
    """
    timm = optional.load("timm", extra="vision")
    if not timm.is_model(name):
        names = timm.list_models()
        hint = choices(name, names, listed=["any of timm.list_models()"], prefix="timm/")
        raise ConfigError(f"unknown model 'timm/{name}': {hint}")
    channels, height, width = image(f"timm/{name}", shape, minimum=1)
    usual = timm.get_pretrained_cfg(name)
    sized = {"img_size": (height, width)} if usual and usual.fixed_input_size else {}
    # Neither option may be said twice, so that nothing is downloaded and no pickle opened.
    model: nn.Module = timm.create_model(
        name,
        pretrained=False,
        checkpoint_path="",
        num_classes=classes,
        in_chans=channels,
        **{**sized, **options},
    )
    return model
