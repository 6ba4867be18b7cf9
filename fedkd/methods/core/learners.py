"""How a client's teacher learns: plainly or by DP-SGD, from labels alone or from a teacher too."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from fedkd.learning import offline, supervised
from fedkd.learning.dp import distil, sgd
from fedkd.methods.core.setting import Setting
from fedkd.privacy.allowance import Allowance
from fedkd.privacy.source import GENERATOR

Learn = Callable[..., object]


def from_labels(
    setting: Setting,
    allowance: Allowance | None,
    batches: torch.Generator,
    beside: Callable[[nn.Module, Tensor], Tensor] | None = None,
) -> Learn:
    """`supervised.train`, or `sgd.train`, which is written down before the first gradient.

    `beside` is what else is learned from other inputs, see `alignment.beside`.
    """
    likelihood = setting.task.likelihood
    if allowance is None:
        return partial(supervised.train, generator=batches, likelihood=likelihood, beside=beside)
    _pay(setting, allowance)
    learn = partial(sgd.train, loss=likelihood.nll, moved=likelihood.moved)
    return partial(learn, noise=setting.noise, like=setting.examples)


def from_teacher(setting: Setting, allowance: Allowance | None, batches: torch.Generator) -> Learn:
    """`offline.teach` or `distil.teach`: of labels and of what a finished teacher passes on.

    Under DP the teacher must be what was paid for, such as a model that the server handed out.
    """
    if allowance is None:
        return partial(offline.teach, generator=batches)
    _pay(setting, allowance)
    return partial(distil.teach, noise=setting.noise, like=setting.examples)


def _pay(setting: Setting, allowance: Allowance) -> None:
    allowance.spend(setting.training, sampler=sgd.SAMPLER, generator=GENERATOR)
