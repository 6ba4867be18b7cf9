"""What a client keeps between rounds on its own disk."""

import json
import os
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import Tensor

from fedkd.errors import MessageError, StorageError
from fedkd.exchange.codec import decode, encode
from fedkd.exchange.gate import Receipt
from fedkd.federation.state import stale
from fedkd.files import append, make_folder, storing, sync, write_atomically

_RECEIPTS = "receipts.jsonl"
_ANSWER_FILE = re.compile(r"answer-(\d{6,})\.safetensors")
_STATE_FILE = re.compile(r"round-(\d{6,})\.safetensors")


class DiskState:
    """A client's memory in a folder of its own: one safetensors file a round, and its receipts.

    What is read again is looked at first, and whatever cannot be read or written is a
    `StorageError`. All of it reaches the disk before the client answers, so that a server may count
    on it.

    Args:
        folder: made when there is something to keep.
        back: how many rounds before the last are kept: see `state.rounds_back`.
    """

    def __init__(self, folder: Path, *, back: int = 1) -> None:
        self._folder = folder
        self._back = back

    def load(self, *, before: int) -> dict[str, Tensor]:
        """See `ClientState.load`."""
        latest = max((round for round in self._rounds() if round < before), default=None)
        if latest is None:
            return {}
        path = self._path(latest)
        try:
            return decode(_read(path))
        except MessageError as error:
            raise StorageError(f"{str(path)!r} is damaged: restore it, or start anew") from error

    def answer(self, *, round: int) -> bytes | None:
        """See `ClientState.answer`.

        Raises:
            StorageError: it, or what was kept with it, is not what it was.
        """
        path = self._answer_path(round)
        if not path.exists():
            return None
        sent, kept = _read(path), self._path(round)
        line = self._lines().get(round, {})
        state = _read(kept) if kept.exists() else b""
        if line.get("sha256") != _bound(line.get("released"), state, sent):
            raise StorageError(
                f"{str(path)!r} was kept with {kept.name} and a line of {_RECEIPTS}, and one of "
                "these is not what it was: restore it, or start anew"
            )
        return sent

    def save(
        self,
        tensors: dict[str, Tensor],
        receipts: Sequence[Receipt] = (),
        *,
        round: int,
        answer: bytes | None = None,
    ) -> None:
        """See `ClientState.save`."""
        make_folder(self._folder)
        state = encode(tensors) if tensors else b""
        line: dict[str, Any] = {"round": round, "released": [asdict(each) for each in receipts]}
        if answer is not None:
            line["sha256"] = _bound(line["released"], state, answer)
        # On a line of its own, even after half of one that a killed writer left.
        append(self._folder / _RECEIPTS, "\n" + json.dumps(line))
        if tensors:
            write_atomically(self._path(round), state)
        if answer is not None:  # last: whoever finds it finds the state that belongs to it
            write_atomically(self._answer_path(round), answer)
        with storing(self._folder):
            for file, path in ((_STATE_FILE, self._path), (_ANSWER_FILE, self._answer_path)):
                for old in stale(self._rounds(file), round, self._back):
                    path(old).unlink(missing_ok=True)

    def keep_secret(self, secret: bytes, *, round: int) -> None:
        """See `ClientState.keep_secret`; nobody else on the machine can read it."""
        make_folder(self._folder)
        path = self._secret_path(round)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with storing(path):
            with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
                file.write(secret)
            temporary.replace(path)

    def take_secret(self, *, round: int) -> bytes | None:
        """See `ClientState.take_secret`."""
        path = self._secret_path(round)
        taken = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        with storing(path):
            try:
                path.rename(taken)  # one of several at once gets it
            except FileNotFoundError:
                return None
            secret = taken.read_bytes()
            taken.unlink()
            sync(self._folder)  # lest it be there again after a loss of power
        return secret

    def first_peers(self, peers: str, *, round: int) -> str:
        """See `ClientState.first_peers`.

        Raises:
            StorageError: what was kept is not what it was.
        """
        make_folder(self._folder)
        path = self._folder / f"peers-{round:06d}.txt"
        whole = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        with storing(path):
            try:
                append(whole, f"{peers} {_digest(peers)}")
                with suppress(FileExistsError):
                    os.link(whole, path)  # name and content at once, and never over another's
                sync(self._folder)
            finally:
                whole.unlink(missing_ok=True)
        first, _, digest = _read(path).decode(errors="replace").partition(" ")
        if digest != _digest(first):
            raise StorageError(f"{str(path)!r} is damaged: restore it, or start anew")
        return first

    def receipts(self) -> dict[int, list[dict[str, Any]]]:
        """What left this client, by round; of a round that was run again, what left last.

        Raises:
            StorageError: they are damaged.
        """
        return {round: line["released"] for round, line in self._lines().items()}

    def _lines(self) -> dict[int, dict[str, Any]]:
        path = self._folder / _RECEIPTS
        if not path.exists():
            return {}
        lines = {}
        try:
            for text in _read(path).decode("utf-8").splitlines():
                with suppress(json.JSONDecodeError):  # half a line: its round was run again
                    line = json.loads(text)
                    lines[int(line["round"])] = {"released": line["released"], **line}
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{str(path)!r} is damaged: restore it, or start anew") from error
        return lines

    def _path(self, round: int) -> Path:
        return self._folder / f"round-{round:06d}.safetensors"

    def _answer_path(self, round: int) -> Path:
        return self._folder / f"answer-{round:06d}.safetensors"

    def _secret_path(self, round: int) -> Path:
        return self._folder / f"secret-{round:06d}.key"

    def _rounds(self, file: re.Pattern[str] = _STATE_FILE) -> set[int]:
        try:
            names = [path.name for path in self._folder.iterdir()]
        except FileNotFoundError:
            return set()
        matches = [file.fullmatch(name) for name in names]
        return {int(match[1]) for match in matches if match}


def _read(path: Path) -> bytes:
    with storing(path):
        return path.read_bytes()


def _bound(released: Any, state: bytes, answer: bytes) -> str:
    """The SHA-256 of what is kept together, in hexadecimal."""
    parts = (json.dumps(released, sort_keys=True).encode(), state, answer)
    return sha256(b"".join(sha256(part).digest() for part in parts)).hexdigest()


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
