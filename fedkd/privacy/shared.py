"""A folder in which all runs on some data share their ledgers, and so one budget."""

from pathlib import Path

from fedkd.errors import ConfigError


def check(folder: Path) -> None:
    """Refuse a folder of an earlier version of fedkd, whose ledgers would count for nothing.

    Those were one a client, `client-0000.db` and so on; all clients of a folder have one now.

    Raises:
        ConfigError: it holds such a ledger.
    """
    if earlier := sorted(folder.expanduser().glob("client-*.db")):
        raise ConfigError(
            f"privacy.ledger is {str(folder)!r}, which holds {earlier[0].name}, a ledger of an "
            "earlier version: what it counts is spent, and no ledger of this version counts it; "
            "lower privacy.epsilon by that much and name another folder, or take other data"
        )
