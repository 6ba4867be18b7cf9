"""The release gate: the one door out of a client, which writes down what leaves.

With `privacy.unit = "none"` everything may leave, and each receipt says that nothing protects it.
"""

from dataclasses import dataclass

from fedkd.config import Privacy
from fedkd.errors import MessageError
from fedkd.exchange.messages import Upload, Value


@dataclass(frozen=True, slots=True)
class Receipt:
    """One field that left a client. Tensors of one model count as one field."""

    field: str
    provenance: str
    bytes: int


def release(upload: Upload, privacy: Privacy) -> tuple[Receipt, ...]:
    """Check that every value may leave under `privacy`, and say what leaves, field by field.

    Raises:
        MessageError: something in the upload is no `Value`, so nobody said where it comes from.
    """
    if privacy.unit != "none":
        raise MessageError(f"privacy.unit is {privacy.unit!r}: the gate knows 'none' only")
    sizes: dict[tuple[str, str], int] = {}
    for name, value in upload.values.items():
        if not isinstance(value, Value):
            raise MessageError(
                f"upload field {name!r} is a bare {type(value).__name__}: "
                "wrap it in Value(data, provenance)"
            )
        key = (name.split("/")[0], str(value.provenance))
        sizes[key] = sizes.get(key, 0) + value.data.nbytes
    return tuple(Receipt(field, provenance, size) for (field, provenance), size in sizes.items())
