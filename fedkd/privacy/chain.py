"""A chain of rows on disk, and whether anything happened to it but growth: reading and checking.

Each row holds the hash of the one before. A seal beside the file holds the hash of the last row and
of the file's bytes, so that a flipped byte in unused space and a cut tail show as well. A key file
holds 32 random bytes, and the first row names it, so that a new key is no new start.

This finds accidents, and edits of one file. It does not stop whoever restores the file, its seal
and its key together from an old copy, or writes all three anew: for that, someone else has to keep
the head, as the server does (`Ledger.check_anchor`).
"""

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = 1
_NOTHING = "0" * 64
_SELECT = "SELECT seq, account, kind, body, previous, hash FROM ledger ORDER BY seq"
_TYPES = [int, str, str, str, str, str]


@dataclass(frozen=True, slots=True)
class Anchor:
    """A place in a chain: the row's number, from 0, and its hash."""

    sequence: int
    digest: str


@dataclass(frozen=True, slots=True)
class Row:
    """One row; `hash` covers all the rest."""

    sequence: int
    account: str
    kind: str
    body: str
    """Canonical JSON."""
    previous: str
    hash: str

    @classmethod
    def after(cls, last: "Row | None", account: str, kind: str, body: Mapping[str, Any]) -> "Row":
        """The row that follows `last`, or the first."""
        sequence, previous = (0, _NOTHING) if last is None else (last.sequence + 1, last.hash)
        bare = cls(sequence, account, kind, canonical(body), previous, "")
        return cls(sequence, account, kind, bare.body, previous, bare.digest())

    def digest(self) -> str:
        """What `hash` must be."""
        covered = canonical([self.sequence, self.account, self.kind, self.body])
        return hashlib.sha256(bytes.fromhex(self.previous) + covered.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Found:
    """What stands on disk."""

    rows: Sequence[Row]
    """All that can be read, in order, also where the chain is broken."""
    digest: str
    """SHA-256 of the file's bytes."""
    fault: str
    """What is wrong, or empty."""
    sealed: bool = True
    """False where a writer was killed after it wrote a row and before it sealed it."""


def canonical(value: Any) -> str:
    """JSON text, the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def beside(path: Path, suffix: str) -> Path:
    """The file that belongs to `path`: `.seal`, `.key`, `.lock`, or SQLite's `-journal`."""
    return path.with_name(path.name + suffix)


def key_identity(key: bytes) -> str:
    """What the first row says of the key."""
    return hashlib.sha256(key).hexdigest()


def seal_of(last: Row, digest: str) -> str:
    """The seal's text for a file with these bytes, whose last row is `last`."""
    return canonical({"sequence": last.sequence, "head": last.hash, "digest": digest})


def examine(path: Path, known: Found | None = None) -> Found:
    """Read and check a chain and what lies beside it, changing nothing.

    Args:
        path: the file.
        known: what was found intact before. Rows are read and hashed again only if the file's bytes
            are others since, and then must go on from these.

    Raises:
        OSError: the file is missing or cannot be read.
    """
    seal = _bytes(beside(path, ".seal"))  # before the file: a writer may come in between
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if known is not None and known.digest == digest:
        rows, fault = known.rows, ""
    else:
        rows, fault = read_rows(content)
        fault = fault or _broken(rows) or _rolled_back(rows, known)
    fault = fault or _wrong_key(rows[0], beside(path, ".key"))
    if fault or seal == seal_of(rows[-1], digest).encode():
        return Found(rows, digest, fault)
    fault = _unsealed(rows, digest, seal)
    return Found(rows, digest, fault, sealed=False)


def read_rows(content: bytes) -> tuple[list[Row], str]:
    """The rows of a database file with these bytes, and why there are no more, or empty."""
    rows: list[Row] = []
    if not content:
        return rows, "is empty"
    try:
        with closing(sqlite3.connect(":memory:")) as database:
            database.deserialize(content)
            for values in database.execute(_SELECT):
                if [type(value) for value in values] != _TYPES:
                    return rows, f"has a row after row {len(rows) - 1} that is damaged"
                rows.append(Row(*values))
    except (sqlite3.Error, UnicodeError) as error:
        return rows, f"cannot be read after row {len(rows) - 1} ({error})" if rows else "is damaged"
    return rows, "" if rows else "has no rows"


def _broken(rows: Sequence[Row]) -> str:
    previous = _NOTHING
    for number, row in enumerate(rows):
        if row.sequence != number:
            return f"lacks row {number}"
        if row.previous != previous or row.hash != row.digest():
            return f"has a row {number} that was changed"
        previous = row.hash
    return ""


def _rolled_back(rows: Sequence[Row], known: Found | None) -> str:
    if known is None or rows[: len(known.rows)][-1:] == known.rows[-1:]:
        return ""
    return f"no longer holds row {len(known.rows) - 1}: another copy was put in its place"


def _wrong_key(first: Row, path: Path) -> str:
    body = json.loads(first.body)
    if first.kind != "genesis" or body.get("format") != FORMAT:
        return f"is of another format than {FORMAT}"
    key = _bytes(path)
    if key is None:
        return f"lacks its key {path.name}"
    return "" if key_identity(key) == body.get("key") else f"has another key than its {path.name}"


def _unsealed(rows: Sequence[Row], digest: str, seal: bytes | None) -> str:
    """What is wrong if the seal is not the file's; nothing, if only its last rows are missing."""
    if seal is None:
        return "lacks its seal"
    try:
        values = json.loads(seal)
        sequence, head, sealed = int(values["sequence"]), values["head"], values["digest"]
    except (ValueError, KeyError, TypeError):
        return "has a damaged seal"
    if sealed == digest or sequence < 0:
        return "has a damaged seal"
    if len(rows) <= sequence:
        return f"ends at row {len(rows) - 1}, its seal says row {sequence}: it was cut or restored"
    if rows[sequence].hash != head:
        return f"has another row {sequence} than its seal"
    return f"was changed since row {sequence}" if len(rows) == sequence + 1 else ""


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
