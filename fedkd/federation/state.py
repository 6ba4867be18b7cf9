"""What a client keeps between rounds: in memory here, on its own disk in `disk_state`.

A state belongs to the round that wrote it, and a round reads what an earlier round left. So a round
that was cut off and is run again finds what it found the first time.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from torch import Tensor

from fedkd import methods
from fedkd.config import Experiment
from fedkd.exchange.gate import Receipt


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
    """A client's memory that ends with the process; `back` as of `stale`."""

    def __init__(self, *, back: int = 1) -> None:
        self._back = back
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
            self._answers[round] = answer
        for old in stale(self._kept, round, self._back):
            del self._kept[old]
            self._answers.pop(old, None)

    def keep_secret(self, secret: bytes, *, round: int) -> None:
        """See `ClientState.keep_secret`."""
        self._secrets[round] = secret

    def take_secret(self, *, round: int) -> bytes | None:
        """See `ClientState.take_secret`."""
        return self._secrets.pop(round, None)

    def first_peers(self, peers: str, *, round: int) -> str:
        """See `ClientState.first_peers`."""
        return self._peers.setdefault(round, peers)


def stale(kept: Iterable[int], round: int, back: int = 1) -> set[int]:
    """The rounds that are needed no more once `round` is kept.

    The server may still run `round` again, so what it started from stays as well; so do `back` in
    all, where it may run earlier ones again.
    """
    kept = set(kept)
    return kept - {round, *sorted(each for each in kept if each < round)[-back:]}


def may_be_ahead(experiment: Experiment) -> bool:
    """Whether clients may begin with a round before the server is done with the one before.

    Not where a client or a server pays for a round: whether there is a next one is not known until
    the round is kept. Nor where rounds have more messages than one, or none to wait for.
    """
    plain = experiment.privacy.unit == "none" and not experiment.privacy.secure_aggregation
    announces = methods.find(experiment.method.name).card.announces
    return announces and plain and experiment.clients.asynchronous is None


def rounds_back(experiment: Experiment) -> int:
    """How many rounds before its last a client may be asked for again.

    Where rounds are asynchronous a client may answer twice between two steps of the server: late
    first, then to the newest broadcast; of which a server that was killed then knows nothing. So it
    is where a client answers the next round before the one before is kept.
    """
    ahead = experiment.clients.asynchronous is not None or may_be_ahead(experiment)
    return 2 if ahead else 1
