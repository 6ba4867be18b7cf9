"""The codec: messages as safetensors bytes, and nothing else.

What a client sends is data from a stranger. `decode` checks the size before it parses, the header
before it builds a tensor, and every value before anybody uses it; its complaints quote what was
expected, never what was received.
"""

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from fedkd.errors import MessageError
from fedkd.exchange.messages import Tensors
from fedkd.specs import TensorSpec

_HEADER_ALLOWANCE = 512
"""Bytes of safetensors header that one tensor may take: name, dtype, shape, offsets."""
_HEADER_BASE = 1024
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


Expected = Mapping[str, TensorSpec]


def encode(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> bytes:
    """Tensors by name as safetensors bytes; the same tensors give the same bytes.

    Raises:
        MessageError: a tensor has a dtype that the codec does not carry.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise MessageError(
                f"tensor {name!r} has dtype {tensor.dtype}: the codec carries "
                f"{', '.join(str(dtype) for dtype in DTYPES)}"
            )
    apart: dict[str, Tensor] = {}
    storages = set()
    for name in sorted(tensors):
        each = tensors[name].detach().contiguous()
        # A copy: safetensors refuses tensors that share memory, as a model's tied weights do.
        storage = each.untyped_storage().data_ptr()
        apart[name] = each.clone() if storage in storages else each
        storages.add(storage)
    return save(apart, None if metadata is None else dict(metadata))


def decode(payload: bytes, expected: Expected | None = None) -> dict[str, Tensor]:
    """Tensors by name from safetensors bytes.

    Args:
        payload: what `encode` made.
        expected: what must be in it, exactly. None trusts the sender: a client its own server, a
            server its own checkpoint.

    Raises:
        MessageError: too large, not safetensors, or a name, shape, dtype or value not as expected.
    """
    if expected is not None:
        _check_size(payload, expected)
    header = _header(payload)
    if expected is not None:
        _check_header(header, expected)
    try:
        tensors = load(payload)
    except Exception as error:
        raise MessageError("message is not valid safetensors") from error
    if expected is not None:
        check_values(tensors, expected)
    return tensors


def half(tensor: Tensor) -> Tensor:
    """The tensor in float16, its range clamped: half the bytes, and never an infinity made here."""
    limit = torch.finfo(torch.float16).max
    return tensor.clamp(-limit, limit).to(torch.float16)


def check_values(tensors: Tensors, expected: Expected) -> None:
    """Refuse numbers that are not finite, or out of their range.

    Raises:
        MessageError: names the field.
    """
    for name, spec in expected.items():
        if not (tensor := tensors[name]).numel():
            continue
        least, most = (each.item() for each in tensor.aminmax())  # NaN both, where there is any
        if not (math.isfinite(least) and math.isfinite(most)):
            raise MessageError(f"field {name!r} holds NaN or infinity")
        if not spec.low <= least <= most <= spec.high:
            raise MessageError(f"field {name!r} is not within [{spec.low:g}, {spec.high:g}]")


def _check_size(payload: bytes, expected: Expected) -> None:
    header = _HEADER_BASE + _HEADER_ALLOWANCE * len(expected)
    most = header + sum(spec.nbytes for spec in expected.values())
    if len(payload) > most:
        raise MessageError(f"message is larger than the {most} bytes that were agreed")


def _header(payload: bytes) -> dict[str, Any]:
    try:
        (length,) = struct.unpack_from("<Q", payload)
        header = json.loads(payload[8 : 8 + length])
    except (struct.error, ValueError, OverflowError, RecursionError) as error:
        raise MessageError("message is not valid safetensors") from error
    if not isinstance(header, dict):
        raise MessageError("message is not valid safetensors")
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def _check_header(header: dict[str, Any], expected: Expected) -> None:
    for name, spec in expected.items():
        entry = header.get(name)
        if not isinstance(entry, dict):
            raise MessageError(f"field {name!r} is missing")
        if entry.get("dtype") != DTYPES[spec.dtype]:
            raise MessageError(f"field {name!r}: dtype is not {spec.dtype}")
        if not spec.fits(entry.get("shape")):
            fewer = ", or with fewer rows" if spec.fewer_rows else ""
            raise MessageError(f"field {name!r}: shape is not {spec.shape}{fewer}")
    if len(header) != len(expected):
        raise MessageError(f"message has other fields than the {len(expected)} that were agreed")
