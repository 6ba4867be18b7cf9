"""Local training in which a constant is added to the gradient of every step."""

import torch
from torch import Tensor

from fedkd.exchange.messages import Tensors, group
from fedkd.methods.core.base import ClientContext, ServerContext, Setting


def parameters(setting: Setting) -> dict[str, Tensor]:
    """The student's parameters that learn, by name, each once, whoever shares it: to look at."""
    model = setting.student.models.to_ask(setting.experiment.student.model)
    return {name: each.detach() for name, each in model.named_parameters() if each.requires_grad}


def kept(ctx: ClientContext | ServerContext, prefix: str) -> dict[str, Tensor]:
    """What a party keeps under a prefix for each of `parameters`; zeros before its first round."""
    if found := group(prefix, ctx.state):
        return dict(found)
    return {name: torch.zeros_like(each) for name, each in parameters(ctx.setting).items()}


def train_corrected(
    ctx: ClientContext, start: Tensors, correction: Tensors, *, proximal: float = 0.0
) -> dict[str, Tensor]:
    """Train the teacher, every step by its gradient + `correction`.

    So it minimises its own loss + the inner product of `correction` and its weights. Under DP the
    gradient is clipped and noisy before anything is added to it, so nothing more is paid for.

    Args:
        ctx: the client's; its teacher has the weights `start`.
        start: the state dict that it starts the round from.
        correction: by the names of `parameters`, of what is no private data.
        proximal: see `ClientContext.train`.

    Returns:
        The mean over steps of the gradient that each step came with, before the correction, on the
        CPU: of plain SGD (start - end) / (steps * learning rate) - correction, and unlike that also
        right where the rate changes, momentum carries on or the optimiser scales.
    """
    learning = {name: each for name, each in ctx.teacher.named_parameters() if name in correction}
    total = {name: torch.zeros_like(each) for name, each in correction.items()}
    steps = 0

    def on_step() -> None:
        nonlocal steps
        steps += 1
        for name, parameter in learning.items():
            if parameter.grad is not None:  # of what had no part in the loss
                total[name] += parameter.grad.cpu()
                parameter.grad += correction[name].to(parameter.grad)

    ctx.train(anchor=start, proximal=proximal, on_step=on_step)
    return {name: each / max(1, steps) for name, each in total.items()}
