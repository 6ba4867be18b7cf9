"""The mean of many equal models, taken as they come in, so that few are held at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedkd.exchange.aggregation.means import average_models
from fedkd.exchange.messages import Tensors

GROUP = 64
"""Models that are held until they are averaged."""


@dataclass(frozen=True, slots=True)
class _Part:
    """The mean of some clients' models, by what they claimed to hold."""

    claimed: Mapping[int, float]
    mean: Tensors


class RunningMean:
    """The mean of models by counts, group by group.

    How much a model weighs is known once all are there, and holding all takes clients x parameters.
    So models are averaged within groups by what clients claim, in float64, then the groups' means
    by what claims count for (`aggregation.bounded`). Of K clients K / 64 means are held, and a
    model of each group as it came: its client's with the largest claim, which is the only one that
    may count for less than it claims as long as nobody else does.

    Groups follow from the places of clients among those asked, and each is averaged in that order:
    who answers first changes no bit. Up to 64 clients are for `average_models`.

    Args:
        clients: who is asked, in order.
    """

    def __init__(self, clients: Sequence[int]) -> None:
        self._groups = {client: place // GROUP for place, client in enumerate(clients)}
        self._awaited = [set(clients[i : i + GROUP]) for i in range(0, len(clients), GROUP)]
        self._held: list[dict[int, tuple[Tensors, float]]] = [{} for _ in self._awaited]
        self._parts: list[list[_Part]] = [[] for _ in self._awaited]
        self._dtypes: dict[str, torch.dtype] = {}

    def add(self, client: int, model: Tensors, claimed: float) -> None:
        """Take in a client's model, and its claim, which is positive."""
        self._held[self._groups[client]][client] = (model, claimed)
        self._dtypes = {name: each.dtype for name, each in model.items()}
        self.leave(client)

    def leave(self, client: int) -> None:
        """Wait for this client no longer."""
        number = self._groups[client]
        self._awaited[number].discard(client)
        if not self._awaited[number] and self._held[number]:
            self._parts[number] = _parts(self._held[number])
            self._held[number] = {}

    def mean(self, counts: Mapping[int, float]) -> dict[str, Tensor]:
        """The mean of all models, by what each client counts for.

        Args:
            counts: of those that were added: what they claimed, but for the client with the largest
                claim, which may count for less.

        Raises:
            ValueError: another counts for something else than it claimed.
        """
        for client in {client for awaited in self._awaited for client in awaited}:
            self.leave(client)
        parts = [part for parts in self._parts for part in parts]
        for part in parts:
            changed = [c for c, claimed in part.claimed.items() if counts[c] != claimed]
            if changed and len(part.claimed) > 1:
                raise ValueError(f"clients {changed} were averaged already by what they claimed")
        totals = [sum(counts[client] for client in part.claimed) for part in parts]
        mean = _mean([part.mean for part in parts], totals)
        return {name: each.to(self._dtypes[name]) for name, each in mean.items()}


def _parts(held: Mapping[int, tuple[Tensors, float]]) -> list[_Part]:
    """A group's heaviest client, and the mean of the others; the first client's comes first."""
    order = sorted(held)
    heaviest = max(order, key=lambda client: held[client][1])
    model, claim = held[heaviest]
    parts = [_Part({heaviest: claim}, model)]
    if others := [client for client in order if client != heaviest]:
        claims = {client: held[client][1] for client in others}
        mean = _mean([held[client][0] for client in others], list(claims.values()))
        parts.append(_Part(claims, mean))
    return sorted(parts, key=lambda part: min(part.claimed))


def _mean(models: Sequence[Tensors], counts: Sequence[float]) -> dict[str, Tensor]:
    """`average_models`, which stays in float64."""
    first = {n: t.double() if t.is_floating_point() else t for n, t in models[0].items()}
    return average_models([first, *models[1:]], counts)
