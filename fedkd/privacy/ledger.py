"""A client's ledger of spent privacy: what was ever done with its data, whoever asked for it.

It is written before anything happens: a plan is committed, each round reserved for its worst case,
then the data touched, then what will be sent settled, then sent. A client that dies in between has
spent its reservation in full, and nothing is refunded.

What holds a budget, and how far:

- A plan that was committed before the data was first touched is enforced by its PLD epsilon. All
  else, as events chosen with knowledge of earlier results, by an RDP filter, which is valid for
  them where stopping on a PLD curve is not. To leave a committed plan is such a choice, so the
  filter goes on counting the rest of the plan, whether it is still made or not.
- The budget that an account is used with first is the most that it allows, whatever budget a later
  experiment names, until the data's owner raises it (`Ledger.allow`).
- A ledger is one owner's, and has one account a unit and adjacency for all data that the owner
  ever has (`OWNERS`): whatever run, client, seed or share for testing deals it, and in whatever
  order its rows stand. Were an account named by the records, each deal would be a new budget.
- Clients of one simulation hold disjoint parts, so of those the one with the most spent counts.
  Two deals add up: a record may have been in any part of each (`statement.History`).
- A flipped byte, a cut tail, a file put back from an old copy, a lost key: found and refused. To
  put back all files together is found only by who kept the head elsewhere (`Ledger.check_anchor`).
"""

import hashlib
import hmac
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedkd.privacy.account import Account, Reservation, now
from fedkd.privacy.budget import Budget
from fedkd.privacy.chain import Anchor
from fedkd.privacy.chain_file import ChainFile
from fedkd.privacy.statement import WHOLE, Part, Statement, histories, read_statements
from fedkd.rows import Rows, batches, length

__all__ = [
    "OWNERS",
    "WHOLE",
    "Account",
    "Anchor",
    "Ledger",
    "Part",
    "Reservation",
    "Statement",
    "fingerprint",
    "read_statements",
]

OWNERS = b"site"
"""What all data of a ledger's owner goes by."""


def fingerprint(x: Rows, y: Tensor) -> bytes:
    """SHA-256 of the records as a multiset, so that a data set stays itself when shuffled.

    Neither the numeric type nor the shape of a record counts, only its values in order; nor whether
    it stands in memory or in a file, of which a part at a time is read. Of a table it is the values
    of one column after another, by the columns' names.

    Args:
        x: N >= 1 records, of any shape.
        y: labels, (N, ...).

    Raises:
        ValueError: x and y differ in their number of records, or there are none.
    """
    scalar = y.ndim == 0 or (isinstance(x, Tensor) and x.ndim == 0)
    if scalar or len(x) != len(y) or len(x) == 0:
        raise ValueError(f"Expected as many labels as records, >= 1, and {y.shape=}.")
    digests, start = [], 0
    for batch in batches(x):
        columns = [batch] if isinstance(batch, Tensor) else [batch[name] for name in sorted(batch)]
        rows = length(batch)
        parts = [_plain(each) for each in (*columns, y[start : start + rows])]
        start += rows
        digests += [
            hashlib.sha256(b"".join(part.tobytes() for part in record)).digest()
            for record in zip(*parts, strict=True)
        ]
    return hashlib.sha256(b"".join(sorted(digests))).digest()


class Ledger:
    """The ledger in one file, of any number of accounts.

    Threads and processes may share the file; each operation locks it.

    Args:
        path: the file. It is made if it is missing, with its folder; beside it stand its `.key`
            (secret: who has it can test guesses of the data set), its `.seal` and its `.lock`.

    Raises:
        LedgerError: the ledger, its seal or its key was changed, cut, put back or lost.
    """

    def __init__(self, path: Path) -> None:
        self._chain = ChainFile(path)

    def account(self, data: bytes, budget: Budget, part: Part = WHOLE) -> Account:
        """The account of some data, that may spend `budget` in all.

        Args:
            data: what the data goes by: `OWNERS`, or a server's name for all its clients.
            budget: the most that may be spent, its unit and its adjacency.
            part: which part of the data is spent of, where it was dealt; its deal is kept keyed.
        """
        named = b"\0".join([data, budget.unit.encode(), budget.adjacency.encode()])
        if part != WHOLE:
            part = replace(part, deal=self._keyed(part.deal.encode()))
        return Account(self._chain, self._keyed(named), budget, part)

    def _keyed(self, text: bytes) -> str:
        """What tells nobody without the key which data it was made of."""
        return hmac.digest(self._chain.key, text, "sha256").hex()

    def allow(self, epsilon: float) -> None:
        """Let each account of this ledger spend up to `epsilon`, as the data's owner may.

        Until then the budget that an account was first used with is the most that it allows.

        Raises:
            ValueError: epsilon is not a positive number.
        """
        with self._chain.locked() as rows:
            caps = {name: past.cap for name, past in histories(rows).items() if past.cap}
            for name, cap in caps.items():
                raised = replace(cap, epsilon=epsilon)
                self._chain.append(name, "allow", {"when": now(), "budget": asdict(raised)})

    @property
    def head(self) -> Anchor:
        """The last row: what to keep elsewhere, for `check_anchor`."""
        with self._chain.locked() as rows:
            return Anchor(rows[-1].sequence, rows[-1].hash)

    def check_anchor(self, anchor: Anchor) -> None:
        """Check that the ledger goes on from `anchor`, its head at some time.

        Raises:
            LedgerError: it does not: an older copy was put in its place, or two copies were used.
        """
        with self._chain.locked() as rows:
            last = len(rows) - 1
            if not 0 <= anchor.sequence <= last:
                raise self._chain.refusal(
                    f"ends at row {last}, its head was row {anchor.sequence} once: "
                    "an older copy was put in its place"
                )
            if rows[anchor.sequence].hash != anchor.digest:
                raise self._chain.refusal(
                    f"has another row {anchor.sequence} than the one that was its head once: "
                    "it is another ledger, or two copies of it were used"
                )


def _plain(tensor: Tensor) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """One row a record; 0.0 is added to make -0.0 and 0.0 the same."""
    flat = tensor.detach().to("cpu", torch.float64).reshape(len(tensor), -1) + 0.0
    return flat.numpy().astype("<f8")
