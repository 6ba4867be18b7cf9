"""Models of Hugging Face transformers, each from a local folder with its config.json."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedkd import optional
from fedkd.errors import ConfigError
from fedkd.names import unknown

_IMAGES, _WORDS = "ForImageClassification", "ForSequenceClassification"
_FIXED = ("architectures", "auto_map", "model_type", "num_labels", "transformers_version")
_AUTO = {_IMAGES: "AutoModelForImageClassification", _WORDS: "AutoModelForSequenceClassification"}


def build(name: str, shape: tuple[int, ...], classes: int, options: Mapping[str, Any]) -> nn.Module:
    """The classifier that a folder's config.json describes, with random weights.

    One for images takes (C, H, W). One for sequences takes rows (L,) of token numbers, of which the
    padding's are not looked at. `options` are keys of config.json. No code of the folder is run.

    Args:
        name: the folder.
        shape: of one input.
        classes: how many logits come out.
        options: instead of what config.json says.

    Raises:
        ConfigError: transformers is not installed, or the folder holds no classifier.
    """
    folder = Path(name).expanduser()
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"model 'hf/{name}': expected a folder with a config.json, as save_pretrained writes "
            "it; nothing is downloaded"
        )
    transformers = _library()
    config = _config(transformers, folder, options, classes)
    kind = _kind(transformers, config, name)
    if kind == _IMAGES:
        _look_at(config, shape, name)
    auto = getattr(transformers, _AUTO[kind])
    model: nn.Module = auto.from_config(config, trust_remote_code=False).float()
    if kind == _WORDS:
        model.register_forward_pre_hook(_tokens, with_kwargs=True)
    return model


def weights_of(folder: Path, model: nn.Module) -> dict[str, Tensor]:
    """A folder's weights by the names that a model of `build` has for them.

    What fits in name but not in shape comes as a tensor of the folder's shape, without values.
    What belongs to another task's head is left out.
    """
    _library()
    kind: Any = type(model)  # from_pretrained knows older names, and weights in several files
    loaded, report = kind.from_pretrained(
        folder,
        config=model.config,
        local_files_only=True,
        use_safetensors=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        dtype=torch.float32,
    )
    found = {k: v for k, v in loaded.state_dict().items() if k not in report["missing_keys"]}
    for name, theirs, _ in report["mismatched_keys"]:
        found[name] = torch.empty(tuple(theirs), device="meta")
    return found


def _config(transformers: Any, folder: Path, options: Mapping[str, Any], classes: int) -> Any:
    """What config.json says, and `options` over it, which are keys of it and nothing else.

    Other keywords of the library would run code, or look for it on a hub.

    Raises:
        ConfigError: an option is no key of it.
    """
    read = partial(
        transformers.AutoConfig.from_pretrained,
        folder,
        local_files_only=True,
        trust_remote_code=False,
        num_labels=classes,
    )
    valid = sorted(key for key in read().to_dict() if key not in _FIXED and key[0] != "_")
    for key in options:
        if key not in valid:
            raise ConfigError(unknown(f"option of 'hf/{folder.name}'", key, valid))
    return read(**options)


def _library() -> Any:
    """transformers, which draws no bars and says nothing in passing: what matters is raised."""
    transformers = optional.load("transformers", extra="text")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return transformers


def _kind(transformers: Any, config: Any, name: str) -> str:
    """What the model classifies: by its architecture's name, else by what there is of it."""
    for kind in _AUTO:
        if any(each.endswith(kind) for each in config.architectures or ()):
            return kind
    for kind, auto in _AUTO.items():
        if type(config) in getattr(transformers, auto)._model_mapping:
            return kind
    raise ConfigError(
        f"model 'hf/{name}' is {config.model_type!r}, which classifies neither images nor sequences"
    )


def _look_at(config: Any, shape: tuple[int, ...], name: str) -> None:
    """Fit a configuration to images of this shape."""
    if len(shape) != 3:
        raise ConfigError(
            f"model 'hf/{name}' cannot take inputs of shape {shape}: expected images "
            "(channels, height, width)"
        )
    channels, height, width = shape
    config.num_channels = channels
    if hasattr(config, "image_size"):
        config.image_size = height if height == width else (height, width)


def _tokens(
    model: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Rows of numbers as token numbers, and a mask without the padding."""
    if not inputs:
        return inputs, named
    ids = inputs[0].long()
    padding: int | None = model.config.pad_token_id  # type: ignore[union-attr, assignment]
    mask = torch.ones_like(ids) if padding is None else (ids != padding).long()
    return (ids,), {"attention_mask": mask, **named}
