"""What the server computes at the end of a secure sum: whose masks come off, and how."""

from collections.abc import Collection, Mapping

from fedkd.errors import FederationError, MessageError
from fedkd.exchange.masking import streams
from fedkd.exchange.masking.keys import public_key, unseal
from fedkd.exchange.masking.protocol import Circle, Opening, mask_keys, own_key
from fedkd.exchange.masking.shares import SHARE_BYTES, combine, xor
from fedkd.exchange.masking.streams import Words


def unmask(
    words: Words,
    circle: Circle,
    sharers: Collection[int],
    survivors: Collection[int],
    openings: Mapping[int, Opening],
    said: bytes = b"",
) -> None:
    """Take all masks off the sum of the survivors' numbers, in place.

    Args:
        words: the sum.
        circle: of the clients.
        sharers: all that shared their secrets.
        survivors: whose numbers are in the sum.
        openings: of as many of them as answered.
        said: digest of what all clients were told.

    Raises:
        FederationError: too few answered, or what some handed out is not what was shared.
    """
    opened = _opened(circle, sharers, survivors, openings)
    seeds = [_secret(circle, opened, client) for client in survivors]
    minus = [own_key(circle, seed, sharers, said) for seed in seeds]
    plus: list[bytes] = []
    for client in sorted(set(sharers) - set(survivors)):
        secret = _secret(circle, opened, client)
        if public_key(secret) != circle.roster[client].masks:
            raise _spoilt(client)
        for other, key in mask_keys(circle, client, secret, sharers, survivors, said).items():
            (minus if other < client else plus).append(key)
    streams.add(words, plus, minus)


def _opened(
    circle: Circle,
    sharers: Collection[int],
    survivors: Collection[int],
    openings: Mapping[int, Opening],
) -> dict[int, dict[int, bytes]]:
    """The shares that were handed out, by whose they are and who held them."""
    found: dict[int, dict[int, bytes]] = {client: {} for client in circle.roster}
    t, among, transcript = circle.degree.threshold, set(sharers), circle.after(sharers, survivors)
    for holder, opening in openings.items():
        parts = {
            each: xor(part, openings[each].pads[holder])
            for each, part in opening.parts.items()
            if each in openings and holder in openings[each].pads
        }
        key = combine(dict(list(parts.items())[:t])) if len(parts) >= t else None
        if key is None:
            continue
        try:
            joined = unseal(key, opening.shares, transcript)
        except MessageError:  # it, or one of these neighbours, speaks of another set
            continue
        around = [each for each in circle.neighbours[holder] if each in among]
        for place, client in enumerate(around):
            found[client][holder] = joined[place * SHARE_BYTES : (place + 1) * SHARE_BYTES]
    return found


def _secret(circle: Circle, opened: Mapping[int, Mapping[int, bytes]], client: int) -> bytes:
    shares, t = opened[client], circle.degree.threshold
    if len(shares) < t:
        raise FederationError(
            f"{len(shares)} neighbours of client {client} opened what it shared, and {t} must: the "
            "others were lost, or one opened what it should not; run again with --resume"
        )
    secret = combine(dict(list(shares.items())[:t]))
    if secret is None:
        raise _spoilt(client)
    return secret


def _spoilt(client: int) -> FederationError:
    return FederationError(
        f"what client {client} shared is not what its neighbours handed out: it or one of them "
        "is faulty; run again with --resume"
    )
