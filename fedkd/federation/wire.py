"""Envelopes: how a call and its answer travel as Flower records.

The payload is the codec's bytes in one array, which Flower moves in chunks. A failure travels as a
kind and a phase out of fixed lists: an exception's own text could hold private data, so it stays
where it was raised.
"""

import builtins
from dataclasses import dataclass

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedkd import errors
from fedkd.errors import MessageError
from fedkd.methods.setting import PHASES

_STYPE = "fedkd.safetensors"
_KINDS = frozenset(
    name
    for module in (builtins, errors)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, Exception)
)


@dataclass(frozen=True, slots=True)
class Call:
    """The server's question to one client, or the client's answer to it."""

    round: int
    client: int
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Failure:
    """A client that could not answer: an exception's kind and the phase that it was in."""

    kind: str
    phase: str = ""

    @classmethod
    def of(cls, error: BaseException, phase: str) -> "Failure":
        """What may be said of an exception: the nearest class of Python's or fedkd's own."""
        kinds = [base.__name__ for base in type(error).__mro__ if base.__name__ in _KINDS]
        return cls(kinds[0] if kinds else "Exception", phase)

    def __str__(self) -> str:
        kind = self.kind if self.kind in _KINDS else "Exception"
        return f"{kind} while {_DOING[self.phase]}" if self.phase in _DOING else kind


_DOING = dict(zip(PHASES, ("distilling", "training", "answering", "evaluating"), strict=True))


def pack(call: Call) -> RecordDict:
    """A call as records."""
    array = Array("uint8", (len(call.payload),), _STYPE, call.payload)
    return RecordDict(
        {
            "call": ConfigRecord({"round": call.round, "client": call.client}),
            "knowledge": ArrayRecord({"payload": array}),
        }
    )


def pack_failure(failure: Failure) -> RecordDict:
    """A failure as records."""
    return RecordDict({"failure": ConfigRecord({"kind": failure.kind, "phase": failure.phase})})


def unpack(content: RecordDict) -> Call | Failure:
    """What `pack` or `pack_failure` made.

    Raises:
        MessageError: records of any other form.
    """
    if "failure" in content.config_records:
        record = content.config_records["failure"]
        return Failure(str(record.get("kind", "")), str(record.get("phase", "")))
    try:
        header = content.config_records["call"]
        array = content.array_records["knowledge"]["payload"]
        round, client = header["round"], header["client"]
    except KeyError as error:
        raise MessageError("answer is not a fedkd message") from error
    if type(round) is not int or type(client) is not int or array.stype != _STYPE:
        raise MessageError("answer is not a fedkd message")
    return Call(round, client, array.data)


def payload_bytes(content: RecordDict) -> int:
    """The encoded bytes that a message carries, whatever they are."""
    return sum(
        len(array.data) for record in content.array_records.values() for array in record.values()
    )
