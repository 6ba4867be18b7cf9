"""What a model holds, put back after each look at private records.

A forward pass may write into the model: `torch.nn.Embedding(max_norm=...)` shrinks the rows that
were looked up, a user's own layer counts. No clip bounds such a write and no noise hides it, so
none may last, whatever the trial of the model (`protectable`) did not find.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Put a model's parameters and buffers back when the context ends, whatever happens in it.

    It costs two copies of the model: some hundredths of a batch's gradients per sample. What stands
    elsewhere, such as in a plain attribute, is not put back.

    Args:
        model: left with the same tensors of the same values as at the start.
    """
    stores: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (store, dict(store))
        for module in model.modules()
        for store in (module._parameters, module._buffers)
    ]
    tensors = [value for _, held in stores for value in held.values() if value is not None]
    kept = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    finally:
        for store, held in stores:  # another tensor may stand there, or one more
            store.clear()
            store.update(held)
        with torch.no_grad():
            for tensor, value in kept:
                tensor.copy_(value)
