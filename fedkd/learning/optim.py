"""Optimisers, and their state as plain tensors."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from fedkd.config import OPTIMISERS, Optimisation


def build(parameters: Iterable[nn.Parameter], optimisation: Optimisation) -> torch.optim.Optimizer:
    """The optimiser of that name in `torch.optim`; `momentum` is for SGD alone."""
    kind = getattr(torch.optim, OPTIMISERS[optimisation.optimiser])
    own = {"momentum": optimisation.momentum} if kind is torch.optim.SGD else {}
    optimiser: torch.optim.Optimizer = eager(kind)(
        parameters, lr=optimisation.learning_rate, weight_decay=optimisation.weight_decay, **own
    )
    return optimiser


@cache
def eager(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """An optimiser of torch's without what its methods are wrapped in for `torch.compile`.

    Those wrappers import `torch._dynamo` when the first optimiser is built, which takes longer than
    torch itself, and go through it in each step. What they wrap is the same class's own code, found
    as `inspect.unwrap` finds it: under a torch that wraps nothing, or hides what it wraps, this is
    the optimiser as it is. Nor is a profiler told, which takes a tenth of a small model's
    step; hooks before and after a step are called all the same, by which audits look on.
    """
    plain = torch.no_grad()(inspect.unwrap(kind.step))

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        for hook in self._optimizer_step_pre_hooks.values():
            hook(self, args, kwargs)
        found = plain(self, *args, **kwargs)
        for hook in self._optimizer_step_post_hooks.values():
            hook(self, args, kwargs)
        return found

    def zero_grad(self: Any, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 - torch's own
        if not set_to_none:
            kind.zero_grad(self, set_to_none=False)
            return
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    vars(step)["hooked"] = True  # as torch marks what needs no profiler's hook
    return type(
        kind.__name__,
        (kind,),
        {
            "__doc__": kind.__doc__,
            "add_param_group": inspect.unwrap(kind.add_param_group),
            "zero_grad": zero_grad,
            "step": step,
        },
    )


def pack(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Copies of the optimiser's state on the CPU: `"<parameter's number>.<name>"` to tensor.

    Empty before the first step, but for Adagrad's. Hyper-parameters are left out; they are the
    configuration's.
    """
    return {
        f"{number}.{name}": value.detach().to("cpu", copy=True)
        for number, parameter in enumerate(_parameters(optimiser))
        for name, value in optimiser.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def unpack(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give a fresh optimiser the state that `pack` took from another of the same kind.

    Raises:
        ValueError: a tensor belongs to no parameter, or has neither its shape nor one element.
    """
    parameters = _parameters(optimiser)
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        if not (number.isdecimal() and int(number) < len(parameters) and name):
            raise ValueError(
                f"optimiser state {key!r}: expected '<number>.<name>' with a number below "
                f"{len(parameters)}; was it saved for another model?"
            )
        parameter = parameters[int(number)]
        if value.shape != parameter.shape and value.numel() != 1:
            raise ValueError(
                f"optimiser state {key!r} has shape {tuple(value.shape)}: expected "
                f"{tuple(parameter.shape)}; was it saved for another model?"
            )
        # Adam counts its steps on the CPU, wherever the parameters are.
        device = value.device if name == "step" else parameter.device
        optimiser.state[parameter][name] = value.to(device, copy=True)


def _parameters(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]
