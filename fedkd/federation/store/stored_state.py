"""One client's part of a run's store."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from fedkd.errors import MessageError, StorageError
from fedkd.exchange.codec import decode, encode
from fedkd.exchange.gate import Receipt
from fedkd.federation.disk_state import DiskState
from fedkd.federation.store.state_store import StateStore


class StoredState:
    """A simulated client's memory: in the store of all, its secrets in a folder of its own.

    Args:
        store: where all clients of the run keep what they keep.
        client: its number.
        folder: made when there is a secret to keep.
    """

    def __init__(self, store: StateStore, client: int, folder: Path) -> None:
        self._store = store
        self._client = client
        self._secrets = DiskState(folder)

    def load(self, *, before: int) -> dict[str, Tensor]:
        """See `ClientState.load`.

        Raises:
            StorageError: it is damaged, or cannot be read.
        """
        content = self._store.state(self._client, before=before)
        try:
            return {} if content is None else decode(content)
        except MessageError as error:
            raise StorageError(
                f"{str(self._store.folder)!r}: what client {self._client} kept before round "
                f"{before} is damaged: restore the folder, or start anew"
            ) from error

    def answer(self, *, round: int) -> bytes | None:
        """See `ClientState.answer`.

        Raises:
            StorageError: it, or what was kept with it, is not what it was.
        """
        return self._store.answer(self._client, round=round)

    def save(
        self,
        tensors: dict[str, Tensor],
        receipts: Sequence[Receipt] = (),
        *,
        round: int,
        answer: bytes | None = None,
    ) -> None:
        """See `ClientState.save`."""
        state = encode(tensors) if tensors else b""
        self._store.save(self._client, state, receipts, round=round, answer=answer)

    def keep_secret(self, secret: bytes, *, round: int) -> None:
        """See `ClientState.keep_secret`; nobody else on the machine can read it."""
        self._secrets.keep_secret(secret, round=round)

    def take_secret(self, *, round: int) -> bytes | None:
        """See `ClientState.take_secret`."""
        return self._secrets.take_secret(round=round)

    def first_peers(self, peers: str, *, round: int) -> str:
        """See `ClientState.first_peers`."""
        return self._secrets.first_peers(peers, round=round)
