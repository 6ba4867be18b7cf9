"""ReviewKD: a student's layers, fused from the deepest up, learn what the teacher's hold."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedkd.errors import ConfigError
from fedkd.knowledge import feature
from fedkd.learning.forms.adapters import Shape, is_maps
from fedkd.learning.forms.base import Compared, Form, Weighted
from fedkd.rng import torch_default

_WIDEST = 512


class Review(nn.Module):
    """Maps of a student, shallow to deep, to maps like the teacher's.

    From the deepest on, each layer is mixed with what the deeper ones became, by learned attention
    to either at each place. Chen et al. 2021, arXiv:2104.09044, without normalisation, which would
    couple the samples of a batch.

    Args:
        student: shapes (C, H, W) of its maps.
        teacher: likewise.
    """

    def __init__(self, student: Sequence[Shape], teacher: Sequence[Shape]) -> None:
        super().__init__()
        middle = min(_WIDEST, student[-1][0])
        self.sizes = [tuple(shape[1:]) for shape in teacher]
        self.narrow = nn.ModuleList(nn.Conv2d(s[0], middle, 1) for s in student)
        self.attend = nn.ModuleList(nn.Conv2d(2 * middle, 2, 1) for _ in student[:-1])
        self.widen = nn.ModuleList(nn.Conv2d(middle, t[0], 3, padding=1) for t in teacher)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """See the class."""
        reviewed: list[Tensor] = []
        deeper = None
        for level in reversed(range(len(maps))):
            x = self.narrow[level](maps[level])
            if deeper is not None:
                deeper = F.interpolate(deeper, x.shape[2:], mode="nearest")
                share = self.attend[level](torch.cat([x, deeper], dim=1)).sigmoid()
                x = x * share[:, :1] + deeper * share[:, 1:]
            deeper = F.interpolate(x, self.sizes[level], mode="nearest")
            reviewed.insert(0, self.widen[level](deeper))
        return reviewed


def _review(
    _params: Weighted,
    student: Sequence[Shape],
    teacher: Sequence[Shape],
    generator: torch.Generator,
) -> Compared:
    for shape in (*student, *teacher):
        if len(shape) not in (1, 3):
            raise ConfigError(
                f"'reviewkd' names a layer that gives {shape}: expected maps (channels, height, "
                "width), or rows"
            )
    with torch_default(generator):
        review = Review(_as_maps(student), _as_maps(teacher))

    def loss(ours: Sequence[Tensor], theirs: Sequence[Tensor], _y: Tensor) -> Tensor:
        both = zip(review(ours), theirs, strict=True)
        return torch.stack([feature.hierarchical(s, t) for s, t in both]).sum(dim=0)

    return Compared(loss, _placed(student), _placed(teacher), beside=review)


def _as_maps(shapes: Sequence[Shape]) -> list[Shape]:
    return [shape if is_maps(shape) else (*shape, 1, 1) for shape in shapes]


def _placed(shapes: Sequence[Shape]) -> nn.ModuleList:
    """Rows as maps of one place."""
    return nn.ModuleList(
        nn.Identity() if is_maps(s) else nn.Unflatten(1, (*s, 1, 1)) for s in shapes
    )


FORMS = {
    "reviewkd": Form("Chen et al. 2021, arXiv:2104.09044", "named", _review, least=2, joint=True),
}
