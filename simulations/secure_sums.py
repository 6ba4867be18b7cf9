"""What secure sums cost, and that they end whoever is lost: secure aggregation without a wire.

    python simulations/secure_sums.py [--clients 10 20 50 100 200] [--lost 0.1 0.2 0.3]
        [--megabytes 2.85] [--one 1000] [--large 10000000]

Every client's part of each step and the server's, in one process and one thread, as
`fedkd.federation` calls them. Seconds are of the processor, not of the clock. Last comes one client
of a thousand, and one of a hundred with ten million numbers, with what all would take; and all
120 triples of ten clients lost after each of the steps, their sums held against the plain ones.
"""

import argparse
import itertools
import resource
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from rich.console import Console
from rich.table import Table

from fedkd.exchange.masking.keys import KeyPairs
from fedkd.exchange.masking.protocol import Circle, Holding, Sharing
from fedkd.exchange.masking.streams import Words
from fedkd.exchange.masking.unmasking import unmask
from fedkd.federation.secure.identity import Identity

T = TypeVar("T")
console = Console(width=130)


@dataclass
class Spent:
    """Seconds of the processor, by step."""

    by_step: dict[str, float] = field(default_factory=dict)

    def on(self, step: str, work: Callable[[], T]) -> T:
        start = time.process_time()
        done = work()
        self.by_step[step] = self.by_step.get(step, 0.0) + time.process_time() - start
        return done

    @property
    def total(self) -> float:
        return sum(self.by_step.values())


def least(clients: int, lost: float) -> int:
    """How many must be left."""
    return clients - int(lost * clients)


def numbers(size: int, client: int) -> Words:
    """Fixed point, small as a client's numbers are."""
    draws = np.random.default_rng(client)
    found: Words = draws.integers(-(2**30), 2**30, size).astype(np.int64).view(np.uint64)
    return found


def secure_sum(
    size: int,
    circle_of: Callable[[dict[int, KeyPairs]], Circle],
    sharers: Collection[int],
    survivors: Collection[int],
    opening: Collection[int],
    clients: Sequence[int],
) -> tuple[Words, Spent]:
    """The sum of the survivors' numbers, and what all parties spent on it."""
    spent = Spent()
    pairs = spent.on("keys", lambda: {client: KeyPairs.new() for client in clients})
    circle = spent.on("keys", lambda: circle_of({c: each.public for c, each in pairs.items()}))
    spent.on("graph", lambda: circle.neighbours)
    sharing: dict[int, Sharing] = {}
    sealed: dict[int, dict[int, bytes]] = {}
    for client in sharers:
        sharing[client], sealed[client] = spent.on(
            "shares", lambda client=client: Sharing.begin(client, pairs[client], circle)
        )
    words, holding = np.zeros(size, np.uint64), {}
    among = set(sharers)
    for client in survivors:
        around = [each for each in circle.neighbours[client] if each in among]
        passed = {each: sealed[each][client] for each in around}
        holding[client] = spent.on(
            "shares", lambda client=client, passed=passed: sharing[client].receive(sharers, passed)
        )
        own = numbers(size, client)
        spent.on("masks", lambda client=client, own=own: sharing[client].mask(own, sharers))
        words += own
    openings = {
        client: spent.on("opening", lambda each=holding[client]: each.open(survivors))
        for client in opening
    }
    spent.on("unmasking", lambda: unmask(words, circle, sharers, survivors, openings))
    return words, spent


def plain_sum(size: int, clients: Iterable[int]) -> Words:
    """The sum without masks."""
    found = np.zeros(size, np.uint64)
    for client in clients:
        found += numbers(size, client)
    return found


def table_of_costs(counts: Sequence[int], shares: Sequence[float], megabytes: float) -> None:
    """Seconds of all parties, where the last to answer are lost between shares and answers."""
    size = int(megabytes * 1e6 / 8)
    steps = ("keys", "graph", "shares", "masks", "opening", "unmasking")
    table = Table(title=f"{megabytes:g} MB a client, seconds of one core for all parties")
    for name in ("clients", "may be lost", "k", "t", "c", "lost", *steps, "all"):
        table.add_column(name, justify="right")
    for count, share in itertools.product(counts, shares):
        left = least(count, share)
        for lost in sorted({0, count - left}):
            clients = range(count)
            survivors = clients[: count - lost]
            found, spent = secure_sum(
                size, lambda told, left=left: Circle(told, left, b"study"),
                clients, survivors, survivors, clients,
            )  # fmt: skip
            if not (found == plain_sum(size, survivors)).all():
                raise SystemExit(f"{count} clients, {lost} lost: the sum is not the survivors'")
            degree = Circle({c: KeyPairs(b"", b"") for c in clients}, left, b"").degree
            figures = [f"{spent.by_step.get(step, 0):.2f}" for step in steps]
            table.add_row(
                str(count), f"{share:.0%}", str(degree.neighbours), str(degree.threshold),
                str(degree.colluders), str(lost), *figures, f"{spent.total:.2f}",
            )  # fmt: skip
    console.print(table)


def one_client(count: int, share: float, size: int) -> None:
    """What one client of many spends and sends, and what all would."""
    left, spent = least(count, share), Spent()
    pairs = {client: KeyPairs.new() for client in range(count)}
    circle = Circle({c: each.public for c, each in pairs.items()}, left, b"study")
    spent.on("graph", lambda: circle.neighbours)
    around = (0, *circle.neighbours[0])
    both = {c: Sharing.begin(c, pairs[c], circle) for c in around[1:]}
    sharing, _ = spent.on("shares", lambda: Sharing.begin(0, pairs[0], circle))
    passed = {c: sealed[0] for c, (_, sealed) in both.items()}
    holding: Holding = spent.on("shares", lambda: sharing.receive(range(count), passed))
    own = numbers(size, 0)
    spent.on("masks", lambda: sharing.mask(own, range(count)))
    spent.on("opening", lambda: holding.open(range(count)))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    degree = circle.degree
    console.print(
        f"one of {count} clients, {size:,} numbers, {share:.0%} may be lost: "
        f"k {degree.neighbours}, t {degree.threshold}; "
        + ", ".join(f"{step} {value:.2f} s" for step, value in spent.by_step.items())
        + f"; all clients {count * spent.total:.0f} s of one core; sent beside the numbers "
        f"{(64 + degree.neighbours * (82 + 3 * 33)) / 1e3:.1f} kB; process {memory:.0f} MiB"
    )


def signatures(count: int) -> None:
    """What signing and checking a roster takes."""
    keys = {str(client): ec.generate_private_key(ec.SECP384R1()) for client in range(count)}
    known = {name: key.public_key() for name, key in keys.items()}
    spent, roster = Spent(), {}
    for client, key in enumerate(keys.values()):
        identity, pairs = Identity(key, known, b"study"), KeyPairs.new().public
        sign = lambda who=identity, told=pairs, c=client: who.sign(told, client=c, round=1)  # noqa: E731
        roster[client] = (pairs, spent.on("sign", sign))
    spent.on("check", lambda: identity.check(roster, client=count - 1, round=1))
    console.print(
        f"P-384 signatures of {count} clients: {spent.by_step['sign'] / count * 1e3:.2f} ms to "
        f"sign one, {spent.by_step['check'] * 1e3:.0f} ms to check all, at each client"
    )


def triples(size: int = 1000) -> None:
    """Any three of ten lost after each step."""
    ten, runs = range(10), 0
    for lost in itertools.combinations(ten, 3):
        left = [client for client in ten if client not in lost]
        for step in range(4):
            sets = [ten] * step + [left] * (4 - step)
            found, _ = secure_sum(
                size, lambda told, least=7: Circle(told, least, b"study"),
                sets[1] if step else left, sets[2], sets[3], sets[0],
            )  # fmt: skip
            if not (found == plain_sum(size, sets[2])).all():
                raise SystemExit(f"{lost} lost at step {step}: the sum is not the survivors'")
            runs += 1
    console.print(f"any 3 of 10 lost before each of the four answers: {runs} sums, all equal")


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, nargs="*", default=[10, 20, 50, 100, 200])
    parser.add_argument("--lost", type=float, nargs="*", default=[0.1, 0.2, 0.3])
    parser.add_argument("--megabytes", type=float, default=2.85)
    parser.add_argument("--one", type=int, default=1000, help="one client of so many; 0: none")
    parser.add_argument("--large", type=int, default=10_000_000, help="numbers; 0: none")
    given = parser.parse_args()
    triples()
    table_of_costs(given.clients, given.lost, given.megabytes)
    size = int(given.megabytes * 1e6 / 8)
    if given.one:
        one_client(given.one, 0.1, size)
    if given.large:
        one_client(100, 0.1, given.large)
    for count in (10, 100):
        signatures(count)


if __name__ == "__main__":
    main()
