"""Models of Hugging Face transformers, each from a local folder with its config.json."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedkd import optional
from fedkd.config import validate
from fedkd.errors import ConfigError
from fedkd.models.hub import texts
from fedkd.models.hub.trained import ADAPTER, TrainedPart, freeze, plain
from fedkd.models.text.base import ONE_ANSWER
from fedkd.names import unknown
from fedkd.tasks import Task

_IMAGES, _WORDS = "ForImageClassification", "ForSequenceClassification"
_FIXED = ("architectures", "auto_map", "model_type", "num_labels", "transformers_version")
_AUTO = {_IMAGES: "AutoModelForImageClassification", _WORDS: "AutoModelForSequenceClassification"}


def build(
    name: str,
    shape: tuple[int, ...],
    classes: int,
    options: Mapping[str, Any],
    task: Task | None = None,
) -> nn.Module:
    """The model that a folder's config.json describes, with random weights.

    One for images takes (C, H, W). Of a task of texts the model is the library's for what the task
    asks for (`texts.adapt`), and what of it trains can be chosen (`trained.TrainedPart`). Without
    texts it takes rows (L,) of token numbers, does not look at the padding's, and classifies.
    `options` are keys of config.json, beside those of `TrainedPart`. No code of the folder is run.

    Args:
        name: the folder.
        shape: of one input.
        classes: how many logits come out.
        options: instead of what config.json says.
        task: what is asked.

    Raises:
        ConfigError: transformers is not installed, the folder holds no such model, or the texts do
            not fit it.
    """
    folder = Path(name).expanduser()
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"model 'hf/{name}': expected a folder with a config.json, as save_pretrained writes "
            "it; nothing is downloaded"
        )
    transformers = _library()
    if task is not None and task.vocabulary is not None:
        return _of_texts(transformers, folder, classes, options, task)
    config = _config(transformers, folder, options, classes)
    kind = _kind(transformers, config, name)
    if kind == _IMAGES:
        _look_at(config, shape, name)
    auto = getattr(transformers, _AUTO[kind])
    model: nn.Module = auto.from_config(config, trust_remote_code=False).float()
    if kind == _WORDS:
        model.register_forward_pre_hook(_tokens, with_kwargs=True)
    return model


def _of_texts(
    transformers: Any, folder: Path, classes: int, options: Mapping[str, Any], task: Task
) -> nn.Module:
    own = {key: options[key] for key in TrainedPart.model_fields if key in options}
    how = validate(TrainedPart, own, prefix=f"hf/{folder.name}.")
    keys = {key: value for key, value in options.items() if key not in own}
    outputs = 2 if task.targets == "spans" else classes  # of each token: does it begin, or end?
    config = _config(transformers, folder, keys, outputs)
    texts.fit(config, task, folder.name)
    if how.train != "all" and not any(folder.glob("*.safetensors")):
        raise ConfigError(
            f"model 'hf/{folder.name}' is to keep its trunk (train = {how.train!r}), and the "
            "folder has no weights: expected .safetensors files beside config.json, or train = "
            "'all'"
        )
    pooled = task.targets == "identities" or how.pooling == "mean"
    if pooled and task.targets not in ONE_ANSWER:
        raise ConfigError(
            f"model 'hf/{folder.name}': pooling = 'mean' is of a text as a whole, and task "
            f"{task.name!r} asks for each token: leave it out"
        )
    auto = getattr(transformers, texts.auto_of(task, pooled=pooled))
    if type(config) not in auto._model_mapping:
        raise ConfigError(
            f"model 'hf/{folder.name}' is {config.model_type!r}, which does not answer as task "
            f"{task.name!r} asks ({auto.__name__}): choose another folder"
        )
    model: nn.Module = auto.from_config(config, trust_remote_code=False).float()
    texts.adapt(model, task, pooled=pooled)
    freeze(model, how, pooled=pooled, name=folder.name)
    return model


def weights_of(folder: Path, model: nn.Module) -> dict[str, Tensor]:
    """A folder's weights by the names that a model of `build` has for them.

    What fits in name but not in shape comes as a tensor of the folder's shape, without values.
    What belongs to another task's head is left out, and adapters stay as they are.
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
    theirs = {k: v for k, v in loaded.state_dict().items() if k not in report["missing_keys"]}
    for name, shape, _ in report["mismatched_keys"]:
        theirs[name] = torch.empty(tuple(shape), device="meta")
    return {
        name: own if ADAPTER in name else theirs[plain(name)]
        for name, own in model.state_dict().items()
        if ADAPTER in name or plain(name) in theirs
    }


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
