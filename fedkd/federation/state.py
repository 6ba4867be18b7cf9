"""What a client keeps between rounds: in memory in a simulation, on its own disk elsewhere.

A state belongs to the round that wrote it, and a round reads what an earlier round left. So a round
that was cut off and is run again finds what it found the first time.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from safetensors.torch import load, save
from torch import Tensor

from fedkd.exchange.gate import Receipt
from fedkd.files import write_atomically

_RECEIPTS = "receipts.jsonl"


class ClientState(Protocol):
    """One client's memory."""

    def load(self, *, before: int) -> dict[str, Tensor]:
        """What the client's latest round before `before` kept; empty if there was none."""

    def save(
        self, tensors: dict[str, Tensor], receipts: Sequence[Receipt] = (), *, round: int
    ) -> None:
        """Keep `tensors` for the rounds after `round`, and the receipts of what left in it."""


class MemoryState:
    """A client's memory that ends with the process."""

    def __init__(self) -> None:
        self._kept: dict[int, dict[str, Tensor]] = {}
        self.receipts: dict[int, tuple[Receipt, ...]] = {}

    def load(self, *, before: int) -> dict[str, Tensor]:
        """See `ClientState.load`."""
        earlier = [round for round in self._kept if round < before]
        return dict(self._kept[max(earlier)]) if earlier else {}

    def save(
        self, tensors: dict[str, Tensor], receipts: Sequence[Receipt] = (), *, round: int
    ) -> None:
        """See `ClientState.save`."""
        self.receipts[round] = tuple(receipts)
        self._kept = {round: {name: t.detach().clone() for name, t in tensors.items()}}


class DiskState:
    """A client's memory in a folder of its own, one safetensors file a round, the last two kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, *, before: int) -> dict[str, Tensor]:
        """See `ClientState.load`."""
        earlier = [round for round in self._rounds() if round < before]
        return load(self._path(max(earlier)).read_bytes()) if earlier else {}

    def save(
        self, tensors: dict[str, Tensor], receipts: Sequence[Receipt] = (), *, round: int
    ) -> None:
        """See `ClientState.save`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lines = {**self.receipts(), round: [asdict(receipt) for receipt in receipts]}
        text = "".join(json.dumps({"round": r, "released": lines[r]}) + "\n" for r in sorted(lines))
        write_atomically(self._folder / _RECEIPTS, text)
        contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        write_atomically(self._path(round), save(contiguous))
        # The server may still run this round again, so what this round started from stays as well.
        needed = {round, max((r for r in self._rounds() if r < round), default=round)}
        for stale in set(self._rounds()) - needed:
            self._path(stale).unlink(missing_ok=True)

    def receipts(self) -> dict[int, list[dict[str, Any]]]:
        """What left this client, by round."""
        path = self._folder / _RECEIPTS
        if not path.exists():
            return {}
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return {line["round"]: line["released"] for line in lines}

    def _path(self, round: int) -> Path:
        return self._folder / f"round-{round:06d}.safetensors"

    def _rounds(self) -> list[int]:
        names = [path.name for path in self._folder.glob("round-*.safetensors")]
        matches = [re.fullmatch(r"round-(\d+)\.safetensors", name) for name in names]
        return sorted(int(match[1]) for match in matches if match)
