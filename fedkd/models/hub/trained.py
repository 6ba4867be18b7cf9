"""What of a Hugging Face model trains: all of it, its head, or low-rank adapters."""

from typing import Any, Literal

from pydantic import Field
from torch import nn

from fedkd import optional
from fedkd.config import Frozen
from fedkd.errors import ConfigError

ADAPTER = ".lora_"
"""What the names of an adapter's tensors hold."""


class TrainedPart(Frozen):
    """Options of `hf/FOLDER` that are no keys of its config.json."""

    train: Literal["all", "head", "lora"] = "all"
    """All of it; its head on a trunk that stays as it is; or the head, and adapters in the trunk.
    What does not train, and comes from the folder's weights, is in no message of a federation."""
    rank: int = Field(default=8, ge=1)
    """Of an adapter's two matrices."""
    alpha: float = Field(default=16, gt=0)
    """An adapter counts alpha / rank times."""
    targets: tuple[str, ...] = ()
    """Which linear layers get an adapter, by the ends of their names; none named: those that peft
    knows for the model's kind."""
    pooling: Literal["own", "mean"] = "own"
    """Of a text as a whole: what the library's classifier looks at, or the mean of its tokens'
    states under a linear layer, as sentence encoders are made for."""


def freeze(model: nn.Module, how: TrainedPart, *, pooled: bool, name: str) -> None:
    """Let only what is asked for train, with adapters where they are asked for.

    LoRA: Hu et al. 2021, arXiv:2106.09685.

    Raises:
        ConfigError: nothing would train, peft is not installed, or it finds no layer to adapt.
    """
    if how.train == "all":
        return
    model.requires_grad_(requires_grad=False)
    if how.train == "lora":
        _with_adapters(model, how, name)
    trunk = f"{model.base_model_prefix}."
    for key, parameter in model.named_parameters():
        ours = key.startswith("classifier.") if pooled else not key.startswith(trunk)
        if ADAPTER in key or ours:
            parameter.requires_grad = True
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(
            f"model 'hf/{name}' has no head apart from its trunk, so that train = 'head' would "
            "train nothing: choose 'lora' or 'all'"
        )


def _with_adapters(model: nn.Module, how: TrainedPart, name: str) -> None:
    peft: Any = optional.load("peft", extra="lora")
    config = peft.LoraConfig(
        r=how.rank, lora_alpha=how.alpha, target_modules=list(how.targets) or None
    )
    try:
        peft.inject_adapter_in_model(config, model)
    except ValueError as error:
        layers = [key for key, each in model.named_modules() if isinstance(each, nn.Linear)]
        ends = ", ".join(dict.fromkeys(key.rpartition(".")[2] for key in layers))
        raise ConfigError(
            f"model 'hf/{name}' has no linear layer for targets = {list(how.targets)}: expected "
            f"some of {ends}"
        ) from error


def plain(key: str) -> str:
    """The name that a tensor has where its layer has no adapter."""
    return key.replace(".base_layer.", ".")
