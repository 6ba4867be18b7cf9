"""Which samples are held out, by a keyed hash of each sample alone.

Whether a record is held out must not depend on other records: else one record more or less would
move others, and data sets that differ in one record would differ in many after the split, so that
no epsilon would hold for them. So there is no drawing by position and no exact share of a class.
Copies of a record have the same hash, and so are never on both sides.
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedkd import rng
from fedkd.rows import Batch, Rows, batches


def hashes(x: Rows, names: Sequence[str], *, seed: int, purpose: str) -> NDArray[np.float64]:
    """A number for each sample, in [0, 1): pseudo-random, and the same wherever the sample stands.

    Args:
        x: N records, of which the values count, not how a file writes them.
        names: of each sample what belongs to it beside `x`, such as its label by name; N of them.
        seed: the experiment's.
        purpose: what the numbers are for; two purposes share no numbers.
    """
    key = rng.derive(seed, purpose=purpose).to_bytes(8)
    records = (record for batch in batches(x) for record in _records(batch))
    return np.array(
        [
            int.from_bytes(hashlib.blake2b(record + name.encode(), key=key, digest_size=8).digest())
            >> 11
            for record, name in zip(records, names, strict=True)
        ]
    ) * (2.0**-53)


def _records(batch: Batch) -> Iterator[bytes]:
    """What is hashed of each record; of a table its columns in the order of their names."""
    columns = [batch] if isinstance(batch, Tensor) else [batch[name] for name in sorted(batch)]
    # + 0.0: -0.0 and 0.0 are the same
    parts = [(x.reshape(len(x), -1) + 0.0).numpy().astype("<f4") for x in columns]
    return (b"".join(part.tobytes() for part in record) for record in zip(*parts, strict=True))


def held_out(x: Rows, names: Sequence[str], share: float, *, seed: int, purpose: str) -> Tensor:
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
