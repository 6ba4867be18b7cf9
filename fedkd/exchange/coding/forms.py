"""How the answers in a run's messages are written, both ways, and what both sides keep for that.

A client and the server have the same last answers if the client answered the last round and that
was let in: then each has what it sent and what it was sent. The server alone knows, and tells every
other client; such a one is sent answers whole, and writes its own whole.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedkd.config.exchange import Exchange
from fedkd.errors import MessageError
from fedkd.exchange.codec import Expected, check_values
from fedkd.exchange.coding.fields import AnswerField, Written
from fedkd.exchange.messages import Broadcast, Tensors

_ANEW = "exchange/anew"
"""In a broadcast: that the server has nothing in common with this client."""
_WHOLE = "exchange/whole"
_SENT, _RECEIVED = "exchange/sent", "exchange/received"


@dataclass(frozen=True)
class AnswerForms:
    """How fields of answers are written, by `[exchange]`; all other fields stay as they are."""

    how: Exchange
    fields: Mapping[str, AnswerField]

    def expected(self, plain: Expected) -> Expected:
        """What an upload looks like on the wire, of which `plain` says what it holds."""
        return {**plain, **{name: self._up(name).expected for name in plain if name in self.fields}}

    def written(
        self, tensors: Tensors, kept: Tensors, received: Tensors, round: int
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """A client's upload as it crosses the wire, and what the client keeps of it.

        Args:
            tensors: the upload.
            kept: the client's state of its last round.
            received: the broadcast that it answers, before it was `received`.
            round: from 1.
        """
        wire, keep = dict(tensors), {}
        for name in self._among(tensors):
            base = None if _ANEW in received else kept.get(f"{_SENT}/{name}")
            wire[name], found = self._up(name).write(tensors[name], base, round)
            keep[f"{_SENT}/{name}"] = found
        return wire, keep if self.how.remembers else {}

    def let_in(self, tensors: Tensors, client: int, state: Tensors) -> dict[str, Tensor]:
        """A client's upload as the server's method reads it; the server has this state.

        Raises:
            MessageError: a field is not what was agreed.
        """
        found = dict(tensors)
        for name in self._among(tensors):
            try:
                found[name] = self._up(name).read(tensors[name], state.get(_of(client, name)))
            except MessageError as error:
                raise MessageError(f"field {name!r} {error}") from error
            check_values(found, {name: self.fields[name].spec})
        return found

    def to_keep(self, uploads: Mapping[int, Tensors]) -> dict[str, Tensor]:
        """What the server's state keeps of what was let in, by client."""
        if not self.how.remembers:
            return {}
        return {
            _of(client, name): upload[name]
            for client, upload in uploads.items()
            for name in self._among(upload)
        }

    def told(
        self, broadcast: Broadcast, state: Tensors, round: int, *, answered: Collection[int],
        clients: int,
    ) -> tuple[Broadcast, dict[str, Tensor]]:  # fmt: skip
        """A broadcast as it crosses the wire, and what the server's state keeps of it.

        Args:
            broadcast: after the step of `round`.
            state: the server's.
            round: from 1.
            answered: whose uploads of this round were let in.
            clients: how many there are.
        """
        keep: dict[str, Tensor] = {}
        common = dict(broadcast.common)
        by_client = {c: dict(each) for c, each in broadcast.by_client.items()}
        whole: dict[str, Tensor] = {}
        for name in self._among(common):
            base = state.get(f"{_RECEIVED}/{name}")
            common[name], found = self._down(name).write(common[name], base, round)
            keep[f"{_RECEIVED}/{name}"] = found
            if base is not None:
                whole[f"{_WHOLE}/{name}"] = found
        for part in by_client.values():
            for name in self._among(part):
                part[name], _ = self._down(name).write(part[name], None, round)
        if self.how.remembers:
            for client in range(clients):
                if client not in answered:
                    anew = {_ANEW: torch.ones((), dtype=torch.bool), **whole}
                    by_client[client] = {**by_client.get(client, {}), **anew}
        return Broadcast(common, broadcast.by_model, by_client), (
            keep if self.how.remembers else {}
        )

    def received(
        self, tensors: Tensors, kept: Tensors
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """A broadcast as a client's method reads it, and what the client keeps of it.

        Args:
            tensors: as they crossed the wire.
            kept: the client's state of its last round.

        Raises:
            MessageError: a field is a difference from answers that this client does not have.
        """
        found = {name: each for name, each in tensors.items() if not name.startswith("exchange/")}
        keep = {}
        for name in self._among(found):
            if (whole := tensors.get(f"{_WHOLE}/{name}")) is None:
                try:
                    whole = self._down(name).read(found[name], kept.get(f"{_RECEIVED}/{name}"))
                except MessageError as error:
                    raise MessageError(f"the broadcast's field {name!r} {error}") from error
            found[name] = keep[f"{_RECEIVED}/{name}"] = whole
        return found, keep if self.how.remembers else {}

    def _among(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name in self.fields]

    def _up(self, name: str) -> Written:
        return Written(self.how, self.fields[name].spec, up=True)

    def _down(self, name: str) -> Written:
        return Written(self.how, self.fields[name].spec, up=False)


def _of(client: int, name: str) -> str:
    """Under which the server's state keeps what a client answered last."""
    return f"exchange/client-{client}/{name}"
