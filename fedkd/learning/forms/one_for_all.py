"""OFA-KD: layers of a student answer for themselves, and learn from an unlike teacher's answers."""

from collections.abc import Sequence
from functools import partial

import torch
from pydantic import Field
from torch import Tensor, nn

from fedkd.knowledge import label
from fedkd.learning.forms import adapters
from fedkd.learning.forms.adapters import Shape, is_maps
from fedkd.learning.forms.base import Compared, Form
from fedkd.learning.forms.label import Tempered
from fedkd.rng import torch_default


class OneForAll(Tempered):
    """Parameters of `ofa`."""

    temperature: float = Field(default=1.0, gt=0)
    """What logits are divided by."""
    gamma: float = Field(default=1.0, ge=1)
    """The higher, the more the true class counts beside the others."""


def _branch(shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """From a layer to logits (N, classes): maps by two convolutions, tokens by their mean.

    Smaller than the paper's, which has as many separable convolutions or transformer blocks as
    there are stages left, and without its normalisation, which would couple samples.
    """
    if not is_maps(shape):
        pool = [nn.AdaptiveAvgPool2d((1, None)), nn.Flatten()] if len(shape) == 2 else []
        entered = shape[-1:] if pool else shape
        return nn.Sequential(*pool, adapters.fit(entered, (classes,), generator))
    channels, height, width = shape
    seen = adapters.translator(channels, channels, (height, width), generator)
    with torch_default(generator):
        last = nn.Linear(channels, classes)
    return nn.Sequential(seen, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)


def _ofa(
    params: OneForAll, student: Sequence[Shape], teacher: Sequence[Shape], g: torch.Generator
) -> Compared:
    """The student's last shape is that of its own answer, which learns alike."""
    classes = teacher[0][-1]
    branches = [_branch(shape, classes, g) for shape in student[:-1]]
    loss = partial(label.one_for_all, temperature=params.temperature, gamma=params.gamma)

    def compare(ours: Sequence[Tensor], theirs: Sequence[Tensor], y: Tensor) -> Tensor:
        return torch.stack([loss(each, theirs[0], y) for each in ours]).sum(dim=0)

    adapted = nn.ModuleList([*branches, nn.Identity()])
    return Compared(compare, adapted, nn.ModuleList([nn.Identity()]))


FORMS = {
    "ofa": Form("Hao et al. 2023, arXiv:2310.19444", "student", _ofa, OneForAll, asks=("classes",)),
}
