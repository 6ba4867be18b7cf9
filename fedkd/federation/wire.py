"""Envelopes: how a call and its answer travel as Flower records.

The payload is the codec's bytes in one array, which Flower moves in chunks. A failure travels as a
kind and a phase out of fixed lists: an exception's own text could hold private data, so it stays
where it was raised, but in a simulation, where there is nobody to hide it from. A simulation's run
folder may be published, so under DP it has fedkd's own words alone. Where a ledger stands travels
beside the payload, since the ledger holds the payload's digest.
"""

import builtins
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedkd import errors
from fedkd.errors import MessageError, PolicyError
from fedkd.methods.core.setting import PHASES
from fedkd.privacy.statement import FILTER, PLD

_STYPE = "fedkd.safetensors"
_KINDS = frozenset(
    name
    for module in (builtins, errors)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, Exception)
)


@dataclass(frozen=True, slots=True)
class LedgerHead:
    """Where a client's ledger stands: the head of its chain, and what is spent.

    A client sends it; the server sends the last one back, so that an old copy of the ledger shows.
    """

    sequence: int
    head: str
    """SHA-256 in hexadecimal."""
    epsilon: float
    """What the ledger enforces, at the experiment's delta."""
    accountant: str
    """`PLD` or `FILTER`."""


_HEAD = re.compile(r"[0-9a-f]{64}")
_MOST_ROWS = 2**53


@dataclass(frozen=True, slots=True)
class Call:
    """The server's question to one client, or the client's answer to it."""

    round: int
    client: int
    payload: bytes = b""
    ledger_head: LedgerHead | None = None
    beside: bytes = b""
    """What is for this client alone, so that the payload can be one for all."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A client that could not answer: an exception's kind and the phase that it was in."""

    kind: str
    phase: str = ""
    """One of `PHASES`; of a site that refuses, the line of its policy, one of `POLICY`."""
    ledger_head: LedgerHead | None = None
    words: str = ""
    """What the exception said itself; in a simulation only, and no server of a deployment reads
    it."""

    @classmethod
    def of(
        cls, error: BaseException, phase: str, ledger_head: LedgerHead | None = None
    ) -> "Failure":
        """What may be said of an exception: the nearest class of Python's or fedkd's own."""
        kinds = [base.__name__ for base in type(error).__mro__ if base.__name__ in _KINDS]
        where = error.key if isinstance(error, PolicyError) else phase
        return cls(kinds[0] if kinds else "Exception", where, ledger_head)

    def quoting(self, error: BaseException, *, private: bool) -> "Failure":
        """The same with what the exception says: fedkd's own whole, others' type and first line.

        Where records are `private`, of others' the type alone: a library may quote what it was
        given, and the run folder is published.
        """
        if isinstance(error, errors.FedkdError):
            return replace(self, words=str(error))
        name, first = type(error).__name__, str(error).strip().partition("\n")[0][:_LONGEST_LINE]
        parts = ("" if name == self.kind else name, "" if private else first)
        return replace(self, words=": ".join(filter(None, parts)))

    @property
    def quoted(self) -> str:
        """The failure, and what the exception said."""
        return ": ".join(filter(None, (str(self), self.words)))

    @property
    def refused(self) -> bool:
        """Whether a budget, or a ledger that cannot be believed, did not allow the round."""
        return self.kind in _REFUSALS

    def __str__(self) -> str:
        if self.kind in _REFUSALS:
            return _REFUSALS[self.kind]
        if self.kind == PolicyError.__name__:
            line = f" ({self.phase})" if self.phase in POLICY else ""
            return f"its site's policy does not allow it{line}"
        kind = self.kind if self.kind in _KINDS else "Exception"
        return f"{kind} while {_DOING[self.phase]}" if self.phase in _DOING else kind


_REFUSALS = {
    "BudgetError": "its privacy budget does not allow the round",
    "UnpaidError": "its method uses or sends private data that nobody paid for",
    "LedgerError": "its ledger of spent privacy cannot be believed",
}
POLICY = (
    "version",
    "clients",
    "allow.exemplars",
    "allow.methods",
    "allow.models",
    "allow.experiments",
    "data.path",
    "privacy.unit",
    "privacy.epsilon",
    "privacy.delta",
    "privacy.secure_aggregation",
    "limits.rounds",
    "limits.seconds",
    "limits.bytes",
)
"""What can refuse at a site: its version, or a line of its SITE.toml. A fixed list, so that the
server need not read a site's words."""
_LONGEST_LINE = 300
_DOING = dict(zip(PHASES, ("distilling", "training", "answering", "evaluating"), strict=True))


def pack(call: Call) -> RecordDict:
    """A call as records."""
    contents = {"payload": call.payload} | ({"beside": call.beside} if call.beside else {})
    arrays = {n: Array("uint8", (len(each),), _STYPE, each) for n, each in contents.items()}
    content = RecordDict(
        {
            "call": ConfigRecord({"round": call.round, "client": call.client}),
            "knowledge": ArrayRecord(arrays),
        }
    )
    return _with_ledger_head(content, call.ledger_head)


def pack_failure(failure: Failure) -> RecordDict:
    """A failure as records."""
    fields = {"kind": failure.kind, "phase": failure.phase}
    if failure.words:
        fields["words"] = failure.words
    return _with_ledger_head(RecordDict({"failure": ConfigRecord({**fields})}), failure.ledger_head)


def _with_ledger_head(content: RecordDict, ledger_head: LedgerHead | None) -> RecordDict:
    if ledger_head is not None:
        content["ledger"] = ConfigRecord(asdict(ledger_head))
    return content


def unpack(content: RecordDict) -> Call | Failure:
    """What `pack` or `pack_failure` made.

    Raises:
        MessageError: records of any other form.
    """
    ledger_head = _ledger_head(content)
    if (record := _config(content, "failure")) is not None:
        kind, phase, words = (str(record.get(key, "")) for key in ("kind", "phase", "words"))
        return Failure(kind, phase, ledger_head, words)
    header, arrays = _config(content, "call"), content.get("knowledge")
    if header is None or not isinstance(arrays, ArrayRecord) or "payload" not in arrays:
        raise MessageError("answer is not a fedkd message")
    array, beside = arrays["payload"], arrays.get("beside")
    round, client = header.get("round"), header.get("client")
    if type(round) is not int or type(client) is not int or array.stype != _STYPE:
        raise MessageError("answer is not a fedkd message")
    return Call(round, client, array.data, ledger_head, b"" if beside is None else beside.data)


def _ledger_head(content: RecordDict) -> LedgerHead | None:
    record = _config(content, "ledger")
    return None if record is None else read_ledger_head(record)


def _config(content: RecordDict, name: str) -> ConfigRecord | None:
    """The configuration of that name; what is a record of another kind counts for none.

    Looked up by itself: `content.config_records` checks all records anew.
    """
    found = content.get(name)
    return found if isinstance(found, ConfigRecord) else None


def read_ledger_head(record: Mapping[str, Any]) -> LedgerHead:
    """Where a ledger stands, from its fields by name; nothing of them is believed.

    Raises:
        MessageError: one is missing, or not what it is to be.
    """
    at = LedgerHead(*(record.get(name) for name in LedgerHead.__slots__))  # type: ignore[arg-type]
    if (
        [type(value) for value in astuple(at)] != [int, str, float, str]
        or not 0 <= at.sequence < _MOST_ROWS
        or _HEAD.fullmatch(at.head) is None
        or not (math.isfinite(at.epsilon) and at.epsilon >= 0)
        or at.accountant not in (PLD, FILTER)
    ):
        raise MessageError("answer does not say where its ledger stands")
    return at


def payload_bytes(content: RecordDict) -> int:
    """The encoded bytes that a message carries, whatever they are."""
    return sum(
        len(array.data) for record in content.array_records.values() for array in record.values()
    )
