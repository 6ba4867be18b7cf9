"""One secure sum in memory, step by step: each client's part, and what a server passes on."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from fedkd.exchange.masking import streams
from fedkd.exchange.masking.fixed_point import fixed, floating
from fedkd.exchange.masking.keys import KeyPairs
from fedkd.exchange.masking.protocol import Circle, Holding, Opening, Sharing
from fedkd.exchange.masking.unmasking import unmask

SHAPES = {"features": (17,), "labels": (4, 3), "one": ()}
Numbers = dict[str, Tensor]


def drawn(clients: Sequence[int], seed: int, scale: float = 1.0) -> dict[int, Numbers]:
    draws = torch.Generator().manual_seed(seed)
    return {
        c: {
            n: scale * torch.randn(s, generator=draws, dtype=torch.float64)
            for n, s in SHAPES.items()
        }
        for c in clients
    }


class Clients:
    """Who made keys for a sum; the server's part is to pass things on, and to leave some out."""

    def __init__(self, clients: Sequence[int], least: int, context: bytes = b"tiny, 1") -> None:
        self.pairs = {client: KeyPairs.new() for client in clients}
        self.circle = Circle({c: p.public for c, p in self.pairs.items()}, least, context)
        self.sharing: dict[int, Sharing] = {}
        self.sealed: dict[int, dict[int, bytes]] = {}
        self.holding: dict[int, Holding] = {}
        self.sent: dict[int, streams.Words] = {}

    def share(self, clients: Collection[int]) -> None:
        for client in clients:
            self.sharing[client], self.sealed[client] = Sharing.begin(
                client, self.pairs[client], self.circle
            )

    def passed_on(self, client: int, sharers: Collection[int]) -> dict[int, bytes]:
        around = self.circle.neighbours[client]
        return {each: self.sealed[each][client] for each in around if each in sharers}

    def answer(
        self, clients: Collection[int], parts: dict[int, Numbers], sharers: Collection[int]
    ) -> None:
        for client in clients:
            sharing = self.sharing[client]
            self.holding[client] = sharing.receive(sharers, self.passed_on(client, sharers))
            self.sent[client] = streams.flat(fixed(parts[client], parties=len(self.pairs)))
            sharing.mask(self.sent[client], sharers)

    def open(self, clients: Collection[int], survivors: Collection[int]) -> dict[int, Opening]:
        return {client: self.holding[client].open(survivors) for client in clients}

    def total(
        self,
        sharers: Collection[int],
        survivors: Collection[int],
        openings: dict[int, Opening],
        among: Collection[int] = (),
    ) -> Numbers:
        """What a server reads of the numbers of `among`, the survivors' if it is honest."""
        words = sum(self.sent[client] for client in among or survivors)
        unmask(words, self.circle, sharers, survivors, openings)
        return floating(streams.shaped(words, SHAPES))

    def run(
        self,
        parts: dict[int, Numbers],
        *,
        sharers: Collection[int],
        survivors: Collection[int],
        opening: Collection[int],
    ) -> Numbers:
        self.share(sharers)
        self.answer(survivors, parts, sharers)
        return self.total(sharers, survivors, self.open(opening, survivors))


def plain(parts: dict[int, Numbers], clients: Collection[int]) -> Numbers:
    """The sum on the grid, by no mask at all."""
    numbers = [fixed(parts[client], parties=len(parts)) for client in clients]
    return floating({name: sum(each[name] for each in numbers) for name in SHAPES})
