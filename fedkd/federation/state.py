"""What a client keeps between rounds: in memory in a simulation, on its own disk elsewhere.

A state belongs to the round that wrote it, and a round reads what an earlier round left. So a round
that was cut off and is run again finds what it found the first time.
"""

import json
import os
import re
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from fedkd.exchange.codec import decode, encode
from fedkd.exchange.gate import Receipt
from fedkd.files import write_atomically

_RECEIPTS = "receipts.jsonl"
_STATE_FILE = re.compile(r"round-(\d{6,})\.safetensors")


class ClientState(Protocol):
    """One client's memory."""

    def load(self, *, before: int) -> dict[str, Tensor]:
        """What the client's latest round before `before` kept; empty if there was none."""

    def answer(self, *, round: int) -> bytes | None:
        """What was about to leave in `round`, if it was kept: sending it again costs nothing."""

    def save(
        self,
        tensors: dict[str, Tensor],
        receipts: Sequence[Receipt] = (),
        *,
        round: int,
        answer: bytes | None = None,
    ) -> None:
        """Keep `tensors` for the rounds after `round`, and the receipts of what left in it.

        Where noise was drawn, running the round again would cost anew; then `answer` is kept too.
        """

    def keep_secret(self, secret: bytes, *, round: int) -> None:
        """Keep a secret for one answer in `round`, in place of any that was kept before."""

    def take_secret(self, *, round: int) -> bytes | None:
        """The secret of `round`, which is forgotten: only one caller ever gets it."""

    def first_peers(self, peers: str, *, round: int) -> str:
        """With whom the client answered first in `round`: `peers` if it did not before."""


class MemoryState:
    """A client's memory that ends with the process."""

    def __init__(self) -> None:
        self._secrets: dict[int, bytes] = {}
        self._peers: dict[int, str] = {}
        self._kept: dict[int, dict[str, Tensor]] = {}
        self._answers: dict[int, bytes] = {}
        self.receipts: dict[int, tuple[Receipt, ...]] = {}

    def load(self, *, before: int) -> dict[str, Tensor]:
        """See `ClientState.load`."""
        earlier = [round for round in self._kept if round < before]
        return dict(self._kept[max(earlier)]) if earlier else {}

    def answer(self, *, round: int) -> bytes | None:
        """See `ClientState.answer`."""
        return self._answers.get(round)

    def save(
        self,
        tensors: dict[str, Tensor],
        receipts: Sequence[Receipt] = (),
        *,
        round: int,
        answer: bytes | None = None,
    ) -> None:
        """See `ClientState.save`."""
        self.receipts[round] = tuple(receipts)
        self._kept[round] = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        if answer is not None:
            self._answers = {round: answer}
        for stale in _stale(self._kept, round):
            del self._kept[stale]

    def keep_secret(self, secret: bytes, *, round: int) -> None:
        """See `ClientState.keep_secret`."""
        self._secrets[round] = secret

    def take_secret(self, *, round: int) -> bytes | None:
        """See `ClientState.take_secret`."""
        return self._secrets.pop(round, None)

    def first_peers(self, peers: str, *, round: int) -> str:
        """See `ClientState.first_peers`."""
        return self._peers.setdefault(round, peers)


class DiskState:
    """A client's memory in a folder of its own: one safetensors file a round, and its receipts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, *, before: int) -> dict[str, Tensor]:
        """See `ClientState.load`."""
        latest = max((round for round in self._rounds() if round < before), default=None)
        return {} if latest is None else decode(self._path(latest).read_bytes())

    def answer(self, *, round: int) -> bytes | None:
        """See `ClientState.answer`."""
        path = self._answer_path(round)
        return path.read_bytes() if path.exists() else None

    def save(
        self,
        tensors: dict[str, Tensor],
        receipts: Sequence[Receipt] = (),
        *,
        round: int,
        answer: bytes | None = None,
    ) -> None:
        """See `ClientState.save`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        line = {"round": round, "released": [asdict(receipt) for receipt in receipts]}
        with (self._folder / _RECEIPTS).open("a", encoding="utf-8") as file:
            # On a line of its own, even after half of one that a killed writer left.
            file.write("\n" + json.dumps(line))
        if tensors:
            write_atomically(self._path(round), encode(tensors), durable=answer is not None)
        if answer is not None:  # last: whoever finds it finds the state that belongs to it
            write_atomically(self._answer_path(round), answer)
        for stale in _stale(self._rounds(), round):
            self._path(stale).unlink(missing_ok=True)
            self._answer_path(stale).unlink(missing_ok=True)

    def keep_secret(self, secret: bytes, *, round: int) -> None:
        """See `ClientState.keep_secret`; nobody else on the machine can read it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._secret_path(round)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
            f.write(secret)
        temporary.replace(path)

    def take_secret(self, *, round: int) -> bytes | None:
        """See `ClientState.take_secret`."""
        path = self._secret_path(round)
        taken = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            path.rename(taken)  # one of several at once gets it
        except FileNotFoundError:
            return None
        secret = taken.read_bytes()
        taken.unlink()
        return secret

    def first_peers(self, peers: str, *, round: int) -> str:
        """See `ClientState.first_peers`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"peers-{round:06d}.txt"
        whole = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            with whole.open("x", encoding="utf-8") as file:
                file.write(peers)
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(whole, path)  # name and content at once, and never over another's
        finally:
            whole.unlink(missing_ok=True)
        return path.read_text(encoding="utf-8")

    def receipts(self) -> dict[int, list[dict[str, Any]]]:
        """What left this client, by round; of a round that was run again, what left last."""
        path = self._folder / _RECEIPTS
        if not path.exists():
            return {}
        released = {}
        for text in path.read_text(encoding="utf-8").splitlines():
            with suppress(json.JSONDecodeError):  # half a line: its round was run again
                line = json.loads(text)
                released[line["round"]] = line["released"]
        return released

    def _path(self, round: int) -> Path:
        return self._folder / f"round-{round:06d}.safetensors"

    def _answer_path(self, round: int) -> Path:
        return self._folder / f"answer-{round:06d}.safetensors"

    def _secret_path(self, round: int) -> Path:
        return self._folder / f"secret-{round:06d}.key"

    def _rounds(self) -> set[int]:
        try:
            names = [path.name for path in self._folder.iterdir()]
        except FileNotFoundError:
            return set()
        matches = [_STATE_FILE.fullmatch(name) for name in names]
        return {int(match[1]) for match in matches if match}


def _stale(kept: Iterable[int], round: int) -> set[int]:
    """The rounds that are needed no more once `round` is kept.

    The server may still run `round` again, so what it started from stays as well.
    """
    kept = set(kept)
    return kept - {round, max((r for r in kept if r < round), default=round)}
