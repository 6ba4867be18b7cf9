"""Several observers as one."""

from fedkd.federation.answers import Observer, Record


class Together:
    """An observer that passes on what it is told, to each of several in turn.

    Args:
        observers: who is told.
    """

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def round_begins(self, round: int, cohort: list[int]) -> None:
        """See `Observer`."""
        for each in self._observers:
            each.round_begins(round, cohort)

    def client_does(self, client: int, phase: str, done: int, total: int) -> None:
        """See `Observer`."""
        for each in self._observers:
            each.client_does(client, phase, done, total)

    def client_ends(self, client: int, failure: str | None) -> None:
        """See `Observer`."""
        for each in self._observers:
            each.client_ends(client, failure)

    def server_does(self, phase: str, done: int, total: int) -> None:
        """See `Observer`."""
        for each in self._observers:
            each.server_does(phase, done, total)

    def round_ends(self, record: Record) -> None:
        """See `Observer`."""
        for each in self._observers:
            each.round_ends(record)
