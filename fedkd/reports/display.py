"""What a person sees while a federation runs: rounds, clients and phases, live in a terminal.

Where the output is no terminal (a log, a pipe) each round is one plain line.
"""

import threading
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from fedkd.federation.answers import Record
from fedkd.reports import figures, lateness, notebook, wording
from fedkd.runs.scores import ACCURACY_ALONE
from fedkd.tasks import Figures

_SHOWN = 16
"""Clients at work that are listed; a federation may have thousands."""


class Display:
    """An observer that draws. Use it as a context manager."""

    def __init__(
        self, console: Console, *, title: str, rounds: int, score: Figures = ACCURACY_ALONE[0]
    ) -> None:
        self._score = score
        self._console = console
        self._lock = threading.Lock()
        self._working: dict[int, str] = {}
        self._failed: dict[int, str] = {}
        self._waiting = 0
        self._asked, self._over = 0, 0
        self._server = ""
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("rounds"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._task = self._progress.add_task(title, total=rounds, note="")
        self._live = notebook.live(self, console)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def round_begins(self, round: int, cohort: list[int]) -> None:
        """See `Observer`."""
        with self._lock:
            self._working, self._failed, self._waiting = {}, {}, len(cohort)
            if not self._asked:
                self._over = round - 1
            self._asked = round
        self._progress.update(self._task, completed=self._over)

    def client_does(self, client: int, phase: str, done: int, total: int) -> None:
        """See `Observer`."""
        with self._lock:
            self._working[client] = f"{phase} {done}/{total}" if total > 1 else phase

    def client_ends(self, client: int, failure: str | None) -> None:
        """See `Observer`."""
        with self._lock:
            self._waiting -= 1
            self._working.pop(client, None)
            if failure is not None:
                self._failed[client] = failure

    def server_does(self, phase: str, done: int, total: int) -> None:
        """See `Observer`."""
        self._server = f"{phase} {done}/{total}" if total > 1 else phase

    def round_ends(self, record: Record) -> None:
        """See `Observer`."""
        self._server, self._over = "", record["round"]
        line = round_in_words(record, self._score)
        self._progress.update(self._task, completed=record["round"], note="")
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def __rich__(self) -> Group:
        with self._lock:
            working = sorted(self._working.items())
            failed = sorted(self._failed.items())
        rows = Table.grid(padding=(0, 2))
        for client, doing in working[:_SHOWN]:
            rows.add_row(Text(f"  client {client}", style="cyan"), doing)
        if len(working) > _SHOWN:
            rows.add_row(f"  and {len(working) - _SHOWN} more", "")
        queued, ahead = self._waiting - len(working), self._asked > self._over + 1
        if queued > 0 and (ahead or not self._server):
            rows.add_row(Text(f"  {queued} waiting", style="dim"), "")
        for client, reason in failed:
            rows.add_row(Text(f"  client {client}", style="red"), Text(reason, style="red"))
        if self._server:
            its = f", round {self._over + 1}" if ahead else ""  # clients are at the next
            rows.add_row(Text(f"  server{its}", style="magenta"), self._server)
        return Group(self._progress, rows)


def round_in_words(record: Record, score: Figures = ACCURACY_ALONE[0]) -> str:
    """A round in one line, for a terminal or a log."""
    parts = [f"round {record['round']:>3}"]
    if (student := record["student"]) is None:
        parts.append("not scored")
    else:
        parts.append(f"student {figures.named(score, student[score.figure])}")
        if "records" in student:
            parts[-1] += f" of {student['records']:,} test records"
    if record["teachers"] is not None:
        reached = [t[score.figure] for t in record["teachers"]["by_client"].values()]
        mean, best = (
            figures.figure(score, value)
            for value in (record["teachers"][score.mean], score.best(reached))
        )
        parts.append(f"teachers {mean} (best {best})")
    if record["ensemble"] is not None:
        parts.append(f"ensemble {figures.figure(score, record['ensemble'][score.figure])}")
    parts.append(wording.duration(record["seconds"]["total"]))
    parts += [f"client {f['client']} left out: {f['reason']}" for f in record["failures"]]
    parts += [wording.capped(**each) for each in record["capped"]]
    parts += wording.screened(record.get("robust"))
    parts += lateness.in_words(record.get("asynchronous"))
    return "  ".join(parts)
