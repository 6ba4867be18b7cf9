"""How a client's teacher learns: plainly or by DP-SGD, from labels alone or from a teacher too."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from fedkd.learning import offline, supervised
from fedkd.learning.dp import distil, sgd
from fedkd.learning.forms.terms import Terms
from fedkd.methods.core.setting import Setting
from fedkd.privacy.allowance import Allowance
from fedkd.privacy.source import GENERATOR

Learn = Callable[..., object]


def from_labels(setting: Setting, allowance: Allowance | None, batches: torch.Generator) -> Learn:
    """`supervised.train`, or `sgd.train`, which is written down before the first gradient."""
    likelihood = setting.task.likelihood
    if allowance is None:
        return partial(supervised.train, generator=batches, likelihood=likelihood)
    _pay(setting, allowance)
    return partial(sgd.train, noise=setting.noise, loss=likelihood.nll, like=setting.examples)


def from_teacher(
    setting: Setting,
    allowance: Allowance | None,
    batches: torch.Generator,
    teacher: nn.Module,
    terms: Terms,
) -> Learn:
    """`offline.teach` or `distil.teach`: of labels and of what a finished teacher passes on.

    Under DP the teacher must be what was paid for, such as a model that the server handed out.
    """
    if allowance is None:
        return partial(offline.teach, teacher=teacher, terms=terms, generator=batches)
    _pay(setting, allowance)
    noise, like = setting.noise, setting.examples
    return partial(distil.teach, teacher=teacher, terms=terms, noise=noise, like=like)


def _pay(setting: Setting, allowance: Allowance) -> None:
    allowance.spend(setting.training, sampler=sgd.SAMPLER, generator=GENERATOR)
