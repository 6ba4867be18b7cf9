"""The one place where fedkd calls a model on inputs that somebody else goes on using."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fedkd import devices
from fedkd.errors import ConfigError
from fedkd.rows import Batch
from fedkd.tasks.likelihoods.multinomial import SEEN

_OURS = ("torch", "fedkd")
"""Whose layers take inputs in any layout; of a user's own, `view` may be in the way."""
_SLOWER = (nn.GroupNorm, nn.InstanceNorm2d)


def answer(model: nn.Module, x: Batch, *, relaid: bool = True) -> Tensor:
    """What a model says of inputs, of which it gets a copy on the device where it is.

    A model may write into what it is given: `nn.ReLU(inplace=True)` as a first layer, `x.sub_(0.5)`
    in a user's own. Inputs are rows of a test set, a proxy set or a batch that others are asked
    about too, so a copy is what it may write into. Whether it writes cannot be found out before: it
    may depend on the inputs, and torch counts no write through `x.data` or numpy. The copy costs a
    fiftieth of a small MLP's forward pass, and less than a five-hundredth of a convolutional one's.

    Args:
        model: any module, in whatever mode it is.
        x: inputs (N, *shape), or named columns of inputs, by which keywords the model is called;
            gradients reach them, and nothing is written into them.
        relaid: let images be laid out in memory as the model is fastest, which may change the
            last bits: see `layout`.

    Returns:
        The model's answer, (N, ...), where the model is and contiguous: see `unwrapped`.

    Raises:
        ConfigError: there is no tensor in what the model gives.
    """
    device = devices.of(model)
    form = layout(model, device) if relaid and _are_images(x) else torch.preserve_format
    with devices.autocast(device):
        output = (
            model(x.to(device, copy=True, memory_format=form))
            if isinstance(x, Tensor)
            else model(**{name: column.to(device, copy=True) for name, column in x.items()})
        )
    return devices.widened(unwrapped(model, output)).contiguous()


def layout(model: nn.Module, device: torch.device) -> torch.memory_format:
    """How images are laid out in memory for a model: channels last where that is faster.

    On the CPU it is, for convolutions: 1.1 to 1.4 times for a step of training, 1.2 to 2.2 for
    answers. Not with group norm, which takes images apart again (.7 to 1.3 times).
    """
    if device.type != "cpu":
        return torch.preserve_format
    kinds = {type(module) for module in model.modules()}
    convolves = any(issubclass(kind, nn.Conv2d) for kind in kinds)
    slower = any(issubclass(kind, _SLOWER) for kind in kinds)
    ours = all(kind.__module__.partition(".")[0] in _OURS for kind in kinds)
    return torch.channels_last if convolves and ours and not slower else torch.preserve_format


def _are_images(x: Batch) -> bool:
    return isinstance(x, Tensor) and x.dim() == 4 and x.is_floating_point()


def unwrapped(model: nn.Module, output: Any) -> Tensor:
    """The one tensor in what a model gives, with an axis of classes.

    That is `found_in` of it. One number z for an input is the log odds of the second of two
    classes: logits (0, z), whose softmax is (1 - sigmoid(z), sigmoid(z)). A model of a task without
    classes has been told by `with_axis` that it is not.

    Raises:
        ConfigError: there is none.
    """
    found = found_in(model, output)
    return torch.stack([torch.zeros_like(found), found], dim=1) if found.dim() == 1 else found


def with_axis(model: nn.Module, _inputs: object, output: Any) -> Any:
    """A forward hook for a model of a task without classes: one number for an input is (N, 1)."""
    found = found_in(model, output)
    return found.unsqueeze(1) if found.dim() == 1 else output


def of_unseen(model: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> Tensor:
    """A forward hook for a model of items: it says nothing of those that its inputs (N, I) hold.

    Their logits are `SEEN`. So a model is trained to find what it was not shown, and teachers and
    students are compared on what they would recommend.
    """
    return found_in(model, output).masked_fill(inputs[0] > 0, SEEN)


def found_in(model: nn.Module, output: Any) -> Tensor:
    """The one tensor in what a model gives, as it is.

    That is its `.logits` (a Hugging Face output) or `["logits"]`, or the first of several (a tuple
    whose others are an auxiliary loss's).

    Raises:
        ConfigError: there is none.
    """
    found = output
    if isinstance(found, Mapping):
        found = found.get("logits")
    elif hasattr(found, "logits"):
        found = found.logits
    elif isinstance(found, tuple | list) and found:
        found = found[0]
    if not isinstance(found, Tensor):
        keys = f" with {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
        raise ConfigError(
            f"model {type(model).__name__!r} answers {type(output).__name__!r}{keys}: expected a "
            "tensor, a tuple that begins with one, or something with 'logits'"
        )
    return found
