"""The built-in recommenders: histories (N, I) in, logits of all items (N, I) out.

What a model would say of the items in its inputs is hidden by a hook, for all models alike, see
`call.of_unseen`; inputs are hidden at random by training, see `learning.augment`.
"""

from collections import OrderedDict

import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from fedkd.config import Frozen
from fedkd.errors import ConfigError


class MultDAEOptions(Frozen):
    """Options of `mult-dae`."""

    hidden: tuple[PositiveInt, ...] = (200,)
    """Units of each hidden layer; the paper's has 600, 200 and 600."""


class TwoTowerOptions(Frozen):
    """Options of `two-tower`."""

    width: PositiveInt = 32
    """Numbers of a user's and of an item's vector."""


def mult_dae(shape: tuple[int, ...], items: int, options: MultDAEOptions) -> nn.Module:
    """The denoising autoencoder of Liang et al. 2018, arXiv:1802.05814, with tanh.

    Inputs are divided by their L2 norm. Without the paper's dropout, which is a change of inputs
    here, and draws from the run's own streams: `augment = [{ name = "dropout" }]`.
    """
    _check("mult-dae", shape, items)
    layers: OrderedDict[str, nn.Module] = OrderedDict(norm=UnitNorm())
    inputs = items
    for number, units in enumerate(options.hidden, start=1):
        layers[f"hidden{number}"] = nn.Linear(inputs, units)
        layers[f"tanh{number}"] = nn.Tanh()
        inputs = units
    layers["classifier"] = nn.Linear(inputs, items)
    return nn.Sequential(layers)


def two_tower(shape: tuple[int, ...], items: int, options: TwoTowerOptions) -> nn.Module:
    """The inner product of a user's vector with each item's, and the item's bias.

    A user's vector is computed of the history, so that it is nobody's parameter: the mean of what
    the items taken say of their users (`history`; Koren 2008, KDD; Kabbur et al. 2013, KDD), which
    the user tower (`user`) then corrects. That correction begins as none. Items' vectors are the
    rows of `classifier`.
    """
    _check("two-tower", shape, items)
    return nn.Sequential(
        OrderedDict(
            norm=UnitNorm(),
            history=nn.Linear(items, options.width, bias=False),
            user=UserTower(options.width),
            classifier=nn.Linear(options.width, items),
        )
    )


class UnitNorm(nn.Module):
    """Rows (N, I) by their L2 norm; a row of zeros stays."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.normalize(x, dim=1)


class UserTower(nn.Module):
    """Users' vectors (N, width), each moved by what two layers say of it; by nothing at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.move = nn.Linear(width, width)
        nn.init.zeros_(self.move.weight)
        nn.init.zeros_(self.move.bias)

    def forward(self, user: Tensor) -> Tensor:
        """See the class."""
        moved: Tensor = self.move(self.hidden(user).tanh())
        return user + moved


def _check(name: str, shape: tuple[int, ...], items: int) -> None:
    if shape != (items,):
        raise ConfigError(
            f"model {name!r} takes histories of the items that it ranks, and inputs have shape "
            f"{shape} for {items} items: choose it for task 'recommendation', or another model"
        )
