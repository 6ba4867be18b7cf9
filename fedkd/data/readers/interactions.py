"""Who took what, as a CSV file: `user, item` and perhaps `rating, time`, a row each.

A record is one user, and so is the unit of differential privacy: all that a user did is hidden, or
nothing. Its inputs, float32 (I,), are the user's history: 1 for each item taken, 0 for all others.
Its targets, int64 (I,), are 1 for an item that the user took, 0 for one that is not known to be
taken, and -100 for one that does not count.

The catalogue is a file of its own. How many items there are, and which, is built into every model
and stands in front of every party: made of the users' rows it would tell what one of them alone
took.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedkd import config
from fedkd.data.holdout import hashes, held_out
from fedkd.data.readers.tables import csv_file
from fedkd.data.readers.tables.cells import Cells
from fedkd.data.types import Dataset, Samples
from fedkd.errors import ConfigError, DataError
from fedkd.names import choices
from fedkd.tasks.likelihoods.categorical import IGNORED

log = logging.getLogger(__name__)

_FEWEST = 2
"""Items of a test user: one to be shown, one to be found."""


@dataclass(frozen=True)
class _Users:
    """Users in the order of their first rows.

    Attributes:
        names: U of them.
        taken: of each the items by place in the catalogue, the latest last; at least one.
        clients: the client of each, by name; none where there is no such column.
    """

    names: list[str]
    taken: list[list[int]]
    clients: list[str]

    def inputs(self, size: int) -> Tensor:
        """Whole histories, float32 (U, size)."""
        return _hot(self.taken, size)


def load(path: Path, source: config.Source, *, seed: int) -> Dataset:
    """Read a CSV file and hold some of its users out for testing, or take them from `source.test`.

    A training user's inputs are the whole history and so are the targets: training hides a part of
    the inputs (`augment`'s `dropout`) and has the model find what is hidden. Of a test user's items
    the latest are held out, or some by a hash where there is no time; the others are the inputs and
    do not count as targets. Who is a test user follows from the history and the seed alone
    (`holdout`); one with a single item never is.

    Args:
        path: UTF-8, with a header; commas, semicolons or tabs between cells. Rows of items outside
            the catalogue, and with a rating below the threshold, are left out.
        source: `interactions` says which columns are what, `client` whose a user is.
        seed: the experiment's.

    Returns:
        Histories (U, I) and items (U, I); the classes' names are those of the items, and natural
        clients stand in sorted order.

    Raises:
        DataError: names the file and the line, the column or the user.
        ConfigError: there is no catalogue.
    """
    how = source.interactions or config.Interactions()
    items = catalogue(how.items)
    users = _read(path, how, items, source.client, seed)
    x = users.inputs(len(items))
    if source.test is None:
        names = [""] * len(x)
        enough = torch.tensor([len(taken) >= _FEWEST for taken in users.taken])
        held = enough & held_out(x, names, source.test_share, seed=seed, purpose="test users")
        testing = [users.taken[n] for n in held.nonzero()[:, 0].tolist()]
        _check_sides(path, held, source.test_share)
    else:
        other = Path(source.test).expanduser()
        held = torch.zeros(len(x), dtype=torch.bool)
        testing = _tested(other, _read(other, how, items, None, seed))
    return Dataset(
        name=path.name,
        train=_whole(x[~held]),
        test=_folded(testing, len(items), how.held),
        classes=len(items),
        class_names=items,
        groups=None if source.client is None else _groups(path, source.client, users, held),
        targets="items",
    )


def load_rows(path: Path, how: config.Interactions, *, items: Sequence[str]) -> Samples:
    """Read a party's own CSV file, all of whose users are for training; see `load`.

    Args:
        path: as for `load`.
        how: which columns are what.
        items: the catalogue that the parties agreed on.

    Raises:
        DataError: as `load`.
    """
    return _whole(_read(path, how, items, None, seed=0).inputs(len(items)))


def catalogue(file: str | None) -> tuple[str, ...]:
    """The items that a file names, one a line, blank lines left out, in the file's order.

    Raises:
        DataError: it cannot be read, has none, or names one twice.
        ConfigError: there is no file.
    """
    if file is None:
        raise ConfigError(
            "data.interactions.items is missing: name a file with an item a line, the catalogue, "
            "which must be public; made of users' rows it would tell what one of them took"
        )
    path = Path(file).expanduser()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}; expected a catalogue, an item a line") from error
    items = [line.strip() for line in lines if line.strip()]
    if not items:
        raise DataError(f"{path}: no item; expected a catalogue, an item a line")
    if len(set(items)) < len(items):
        twice = next(item for item in items if items.count(item) > 1)
        raise DataError(f"{path}: item {twice!r} stands there twice; name each once")
    return tuple(items)


def _read(
    path: Path, how: config.Interactions, items: Sequence[str], client: str | None, seed: int
) -> _Users:
    table = csv_file.read(path, label=how.item)
    columns = {"user": how.user, "item": how.item, "rating": how.rating, "time": how.time}
    for key, column in columns.items():
        if column is not None:
            table.require(column, f"data.interactions.{key}")
    if client is not None:
        table.require(client, "data.client")
    users, taken = table.column(how.user), table.column(how.item)
    place = {item: n for n, item in enumerate(items)}
    counts = _counting(table, how, taken, place)
    order = _order(table, how, users, taken, seed)
    found: dict[str, dict[int, float]] = {user: {} for user in users}
    for n in order:
        if counts[n]:
            found[users[n]].pop(place[taken[n]], None)  # taken again: later
            found[users[n]][place[taken[n]]] = n
    for user, own in found.items():
        if not own:
            raise table.fault(
                users.index(user),
                f": user {user!r} has no item that counts, of the catalogue"
                + ("" if how.threshold is None else f" and rated {how.threshold:g} or more")
                + "; drop the user's rows",
            )
    return _Users(
        list(found),
        [list(own) for own in found.values()],
        [] if client is None else _one_each(table, client, users),
    )


def _counting(
    table: Cells, how: config.Interactions, taken: list[str], place: dict[str, int]
) -> list[bool]:
    """Which rows are of an item of the catalogue, with a rating that counts."""
    known = [item in place for item in taken]
    if not all(known):
        strange = taken[known.index(False)]
        if not any(known):
            raise DataError(
                f"{table.path}: no row's item stands in the catalogue, such as {strange!r}: "
                f"{choices(strange, list(place)[:10], lead='it begins with ')}"
            )
        log.warning(
            "%s: %d of %d rows are of items outside the catalogue, such as %r, and are left out",
            *(table.path, known.count(False), len(known), strange),
        )
    if how.rating is None or how.threshold is None:
        return known
    ratings = _numbers(table, how.rating)
    return [yes and rating >= how.threshold for yes, rating in zip(known, ratings, strict=True)]


def _order(
    table: Cells, how: config.Interactions, users: list[str], taken: list[str], seed: int
) -> list[int]:
    """Rows by time; those of one time, or of none, by a hash of user and item."""
    names = [f"{user}\n{item}" for user, item in zip(users, taken, strict=True)]
    drawn = hashes(torch.zeros(len(names), 1), names, seed=seed, purpose="held-out items")
    times = np.zeros(len(names)) if how.time is None else np.array(_numbers(table, how.time))
    return [int(n) for n in np.lexsort((drawn, times))]


def _numbers(table: Cells, column: str) -> list[float]:
    values = []
    for n, cell in enumerate(table.column(column)):
        value = table.number(cell)
        if value is None:
            raise table.fault(n, f", column {column!r}: {cell!r} is no finite number")
        values.append(value)
    return values


def _one_each(table: Cells, column: str, users: list[str]) -> list[str]:
    """The one client of each user, in the order of their first rows."""
    clients: dict[str, str] = {}
    for n, (user, client) in enumerate(zip(users, table.column(column), strict=True)):
        if clients.setdefault(user, client) != client:
            raise table.fault(
                n,
                f", column {column!r}: user {user!r} is of {client!r} here and of "
                f"{clients[user]!r} before; expected one client for all rows of a user",
            )
    return list(clients.values())


def _hot(taken: Sequence[Sequence[int]], size: int) -> Tensor:
    """Items by place -> 1 where one was taken: float32 (U, size)."""
    x = torch.zeros(len(taken), size)
    for row, own in zip(x, taken, strict=True):
        row[list(own)] = 1.0
    return x


def _whole(x: Tensor) -> Samples:
    return Samples(x, x.long())


def _folded(taken: Sequence[Sequence[int]], size: int, share: float) -> Samples:
    """Of each user the first items as inputs, and the last, `share` of all, as targets."""
    late = [min(len(own) - 1, max(1, round(share * len(own)))) for own in taken]
    pairs = list(zip(taken, late, strict=True))
    x = _hot([own[:-count] for own, count in pairs], size)
    y = _hot([own[-count:] for own, count in pairs], size).long()
    return Samples(x, y.masked_fill(x == 1, IGNORED))


def _tested(path: Path, users: _Users) -> list[list[int]]:
    for name, own in zip(users.names, users.taken, strict=True):
        if len(own) < _FEWEST:
            raise DataError(
                f"{path}: user {name!r} has 1 item; expected {_FEWEST} or more of each test user, "
                "to show some and to hold some out"
            )
    return users.taken


def _check_sides(path: Path, held: Tensor, share: float) -> None:
    for side, what, remedy in ((held, "testing", "raise"), (~held, "training", "lower")):
        if not side.any():
            raise DataError(
                f"{path}: data.test_share = {share} of {len(held)} users leaves none for {what}; "
                f"{remedy} it, give more users, or name a file of its own by data.test"
            )


def _groups(path: Path, column: str, users: _Users, held: Tensor) -> Tensor:
    """Whose each training user is, int64, by the clients' names in sorted order."""
    names = sorted(set(users.clients))
    codes = torch.tensor([names.index(client) for client in users.clients])[~held]
    for code, name in enumerate(names):
        if not (codes == code).any():
            raise DataError(
                f"{path}: column {column!r}: all users of {name!r} were held out for testing; "
                "lower data.test_share or drop that client"
            )
    return codes
