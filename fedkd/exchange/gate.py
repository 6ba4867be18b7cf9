"""The release gate: the one door out of a client, which writes down what leaves.

Under `privacy.unit = "record"` a value leaves only if it is public, or comes from an event that the
client's ledger holds. Otherwise everything may leave, and each receipt says what protects it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from fedkd.errors import MessageError, UnpaidError
from fedkd.exchange.messages import Public, Release, Upload, Value
from fedkd.privacy.events import Protected, Unprotected

Paid = Callable[[Protected], bool]
"""Whether a ledger holds an event."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """One field that left a client. Tensors of one model count as one field."""

    field: str
    provenance: str
    bytes: int


def release(upload: Upload, paid: Paid | None = None) -> tuple[Receipt, ...]:
    """Check that every value may leave, and say what leaves, field by field.

    Args:
        upload: what a client is about to send.
        paid: under a unit that protects records, whether the client's ledger holds an event; None
            lets everything out that says where it comes from.

    Raises:
        MessageError: something in the upload is no `Value`, so nobody said where it comes from.
        UnpaidError: a value comes from private data, and nobody paid for it.
    """
    sizes: dict[tuple[str, str], int] = {}
    for name, value in upload.values.items():
        if not isinstance(value, Value):
            raise MessageError(
                f"upload field {name!r} is a bare {type(value).__name__}: "
                "wrap it in Value(data, provenance)"
            )
        if paid is not None:
            _require_paid(name, value, paid)
        key = (name.split("/")[0], str(value.provenance))
        sizes[key] = sizes.get(key, 0) + value.data.nbytes
    return tuple(Receipt(field, provenance, size) for (field, provenance), size in sizes.items())


def _require_paid(name: str, value: Value, paid: Paid) -> None:
    origin = value.provenance
    if isinstance(origin, Public):
        return
    event = origin.event if isinstance(origin, Release) else origin.of
    if isinstance(event, Unprotected):
        raise UnpaidError(
            f"upload field {name!r} comes from private data unprotected ({event}): "
            "privacy.unit = 'record' lets out only what the teacher's DP-SGD covers and counts "
            "that are paid for; leave the field out, or pay for it as an event"
        )
    if event.unit != "record" or not paid(event):
        raise UnpaidError(
            f"upload field {name!r} names an event that this client's ledger does not hold "
            f"({event}): nothing leaves unpaid"
        )
