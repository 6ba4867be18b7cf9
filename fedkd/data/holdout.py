"""Which samples are held out for testing."""

import torch
from torch import Generator, Tensor


def stratified(strata: Tensor, share: float, generator: Generator) -> Tensor:
    """Hold out `share` of each stratum, rounded; each keeps at least one sample for training.

    Args:
        strata: int64 (N,), from 0: of each sample its label, say.
        share: in (0, 1).
        generator: of the draw.

    Returns:
        bool (N,), true where a sample is for testing; none may be.
    """
    held = torch.zeros(len(strata), dtype=torch.bool)
    for stratum in range(int(strata.max()) + 1):
        members = torch.nonzero(strata == stratum)[:, 0]
        take = min(round(share * len(members)), len(members) - 1)
        if take > 0:
            held[members[torch.randperm(len(members), generator=generator)[:take]]] = True
    return held
