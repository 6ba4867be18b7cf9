"""Which samples are held out, by a keyed hash of each sample alone.

Whether a record is held out must not depend on other records: else one record more or less would
move others, and data sets that differ in one record would differ in many after the split, so that
no epsilon would hold for them. So there is no drawing by position and no exact share of a class.
Copies of a record have the same hash, and so are never on both sides.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedkd import rng


def hashes(x: Tensor, names: Sequence[str], *, seed: int, purpose: str) -> NDArray[np.float64]:
    """A number for each sample, in [0, 1): pseudo-random, and the same wherever the sample stands.

    Args:
        x: float32 (N, ...), of which the values count, not how a file writes them.
        names: of each sample what belongs to it beside `x`, such as its label by name; N of them.
        seed: the experiment's.
        purpose: what the numbers are for; two purposes share no numbers.
    """
    key = rng.derive(seed, purpose=purpose).to_bytes(8)
    rows = (x.reshape(len(x), -1) + 0.0).numpy().astype("<f4")  # + 0.0: -0.0 and 0.0 are the same
    return np.array(
        [
            int.from_bytes(
                hashlib.blake2b(row.tobytes() + name.encode(), key=key, digest_size=8).digest()
            )
            >> 11
            for row, name in zip(rows, names, strict=True)
        ]
    ) * (2.0**-53)


def held_out(x: Tensor, names: Sequence[str], share: float, *, seed: int, purpose: str) -> Tensor:
    """Hold out each sample with probability `share`, by its hash alone.

    Args:
        x: as for `hashes`.
        names: as for `hashes`.
        share: in (0, 1): how many are held out in expectation.
        seed: the experiment's.
        purpose: what they are held out for.

    Returns:
        bool (N,), true where a sample is held out; none may be, or all.
    """
    return torch.from_numpy(hashes(x, names, seed=seed, purpose=purpose) < share)
