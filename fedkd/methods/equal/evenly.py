"""Means in which each client counts alike, as in papers that take the mean of clients' losses.

No client says how much it holds, so there is no count to pay for, to bound or to lie about.
"""

import torch
from torch import Tensor

from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Upload, Value
from fedkd.methods.core.base import ServerContext, Setting, Uploads
from fedkd.specs import TensorSpec


def expected(setting: Setting, specs: Expected) -> Expected:
    """What `part` makes of what looks like this."""
    if not setting.securely:
        return specs
    return {
        name: TensorSpec(spec.shape, torch.float64)
        for name, spec in specs.items()
        if spec.dtype.is_floating_point
    }


def part(setting: Setting, upload: Upload) -> Upload:
    """A client's part of the mean: as it is, or in float64 where the server sees sums alone.

    There counters of batches, which are no numbers to average, stay at the client.
    """
    if not setting.securely:
        return upload
    return Upload(
        {
            name: Value(value.data.double(), value.provenance)
            for name, value in upload.values.items()
            if value.data.is_floating_point()
        }
    )


def together(ctx: ServerContext, uploads: Uploads) -> dict[str, Tensor]:
    """The mean of all that clients sent, by name, or the rule of `[robust]` for models.

    A rule sees all of a client's tensors as one.
    """
    if ctx.summed:
        [sums] = uploads.values()
        return {name: each / ctx.summed for name, each in sums.items()}
    return ctx.average(uploads, list(uploads.values()), [1.0] * len(uploads))
