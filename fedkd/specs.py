"""What a tensor must look like to be let in."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a tensor must look like to be let in."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    low: float = -math.inf
    high: float = math.inf
    """Every value lies in [low, high]; floating ones are finite in any case."""
    fewer_rows: bool = False
    """Whether the first axis may be shorter than `shape` says, as that of a low-rank update is."""

    @classmethod
    def of(cls, tensor: Tensor, *, low: float = -math.inf) -> "TensorSpec":
        """The specification of a tensor like this one."""
        return cls(tuple(tensor.shape), tensor.dtype, low=low)

    def fits(self, shape: object) -> bool:
        """Whether a tensor may have this shape, as a message's header has it."""
        if not isinstance(shape, list) or len(shape) != len(self.shape):
            return False
        rows = shape[:1] if self.fewer_rows else []
        short = [n for n in rows if type(n) is int and 0 <= n <= self.shape[0]]
        return short == rows and shape[len(rows) :] == list(self.shape[len(rows) :])

    @property
    def count(self) -> int:
        """How many numbers such a tensor holds, at the most."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """How many bytes such a tensor holds, at the most."""
        return self.count * self.dtype.itemsize
