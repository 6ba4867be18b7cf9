"""Who masks with whom: a graph in which each client has k neighbours and t of them open a share.

Bell et al. 2020, "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", CCS 2020,
arXiv:2006.09461: clients stand on a ring in an order that nobody chooses, and each is joined to the
k next to it (a Harary graph). Here the order follows from a digest of all clients' fresh keys, so
that the server cannot choose it.

What t has to be, where at most c of any client's k neighbours tell the server all that they know:

- t of a client's neighbours must be left when as many are lost as may be.
- Where all are neighbours, k/2 < t - c. Neighbours open shares for one set of survivors alone, and
  the server reads what one opened only if t of its own neighbours name the same set. Two sets would
  need more than k honest neighbours.
- On a ring, 2k + 1 < 3 (t - c). Two sets can be read there, far enough apart: on the way from one
  to the other lie 2 (t - c) - k clients or more whose shares cannot be read. A window of k + 1 that
  has readable ones of both has too few in all to give a secret of the client in its middle. So each
  secret that is had comes of one set, and so do those of any two that are near each other. And of a
  set each has an honest neighbour on both sides, so that no part of it can be cut off. With half
  as the bound, hostile neighbours at both ends of an arc cut it off.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_SMALL = 32
"""Up to so many all are neighbours, and whether a round ends is no matter of chance."""
UNLUCKY = 2.0**-20
"""The chance that a round is lost since too many around one client were; nothing is bared."""
UNSAFE = 2.0**-40
"""The chance that more than `Degree.colluders` around one client collude."""
COLLUDING = 0.05
"""The share of all clients that may tell the server what they know."""


@dataclass(frozen=True)
class Degree:
    """How many neighbours each client has, and how many of them open what it shared."""

    neighbours: int
    """k: even, or all others."""
    threshold: int
    """t, more than k/2."""
    colluders: int
    """c: so many of any client's neighbours may tell a hostile server what they know."""


def fits(clients: int, least: int) -> bool:
    """Whether `least` of `clients` are enough that no two sums can be had of one round."""
    return 2 * (least - 1) > clients - 1


@lru_cache(maxsize=32)
def degree(clients: int, least: int) -> Degree:
    """The sparsest graph that does.

    Args:
        clients: n, at least 2, with shares of each other's secrets.
        least: how many of them are left in the end, at least.

    Raises:
        ValueError: so few of them could be two groups that each have a sum of their own.
    """
    if not 2 <= least <= clients or not fits(clients, least):
        raise ValueError(f"Expected more than half of {clients} clients to be left, got {least}.")
    others, colluding = clients - 1, int(COLLUDING * clients)
    for k in range(2, others if clients > _SMALL else 0, 2):
        left = _chances(others, least - 1, k)  # of each number of neighbours that are left
        below = np.concatenate([[0.0], np.cumsum(left)])  # below[t]: fewer than t are left
        t = min(int(np.flatnonzero(clients * below <= UNLUCKY).max()), k)
        borne = (3 * t - 2 * k - 2) // 3
        if borne >= 0:
            above = _chances(others, colluding, k)[borne + 1 :].sum()
            if clients * above <= UNSAFE:
                return Degree(k, t, borne)
    return Degree(others, least - 1, (2 * (least - 1) - others - 1) // 2)


def neighbours(clients: Sequence[int], k: int, digest: bytes) -> dict[int, tuple[int, ...]]:
    """Each client's k neighbours, ascending; a client is its neighbours' neighbour.

    Args:
        clients: distinct.
        k: even, or one less than there are clients.
        digest: gives the order on the ring; who cannot foresee it cannot choose neighbours.
    """
    if k == len(clients) - 1:
        return {each: tuple(sorted(set(clients) - {each})) for each in clients}
    ring = sorted(clients, key=lambda client: hashlib.sha256(digest + b"%d" % client).digest())
    steps = [step for step in range(-(k // 2), k // 2 + 1) if step]
    return {
        client: tuple(sorted(ring[(place + step) % len(ring)] for step in steps))
        for place, client in enumerate(ring)
    }


def holds(
    graph: dict[int, tuple[int, ...]], left: Collection[int], *, threshold: int, least: int
) -> bool:
    """Whether enough clients are left, each among enough of its neighbours."""
    kept = set(left)
    return len(kept) >= least and all(len(kept & {*graph[c]}) >= threshold for c in kept)


def _chances(others: int, marked: int, k: int) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """The chance of each number, 0 to k, of the marked among k drawn from `others`."""
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, others + 1)))])  # of factorials
    drawn = np.arange(max(0, k - (others - marked)), min(k, marked) + 1)
    ways = logs[marked] - logs[drawn] - logs[marked - drawn]
    ways += logs[others - marked] - logs[k - drawn] - logs[others - marked - k + drawn]
    chances = np.zeros(k + 1)
    chances[drawn] = np.exp(ways - (logs[others] - logs[k] - logs[others - k]))
    return chances
