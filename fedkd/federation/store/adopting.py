"""Run folders of earlier versions, in which each client has a folder with a file a round."""

from collections.abc import Iterator
from pathlib import Path

from fedkd.exchange.codec import encode
from fedkd.exchange.gate import Receipt
from fedkd.federation.disk_state import DiskState
from fedkd.federation.store.state_store import StateStore
from fedkd.files import storing

_RECEIPTS = "receipts.jsonl"
_MOST_BACK = 2
"""How many rounds before the last were kept at most."""


def adopt(folder: Path) -> bool:
    """Take what is in clients' folders into the store, as often as it is asked to.

    Args:
        folder: where they are.

    Returns:
        Whether there is anything.

    Raises:
        StorageError: it is damaged, or cannot be read or written.
    """
    found = list(_folders(folder))
    if found:
        with StateStore(folder, back=_MOST_BACK) as store:
            for each in found:
                _adopt(store, int(each.name.rpartition("-")[2]), DiskState(each))
    return bool(found)


def _adopt(store: StateStore, client: int, old: DiskState) -> None:
    for round, released in old.receipts().items():
        state = old.load(before=round + 1)
        store.save(
            client,
            encode(state) if state else b"",
            [Receipt(**each) for each in released],
            round=round,
            answer=old.answer(round=round),
        )


def drop(folder: Path) -> None:
    """Delete what was taken into the store, which the run's checkpoint names now."""
    for each in _folders(folder):
        with storing(each):
            for file in (*each.glob("*.safetensors"), each / _RECEIPTS):  # by the last it is found
                file.unlink()
            if not any(each.iterdir()):  # it may hold a ledger
                each.rmdir()


def _folders(folder: Path) -> Iterator[Path]:
    return (file.parent for file in sorted(folder.glob(f"client-*/{_RECEIPTS}")))
