"""What a person sees while a federation runs: rounds, clients and phases, live in a terminal.

Where the output is no terminal (a log, a pipe) there is one plain line for what begins, and one for
each round.
"""

import textwrap
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from fedkd.federation.answers import Record, step_in_words
from fedkd.reports import figures, lateness, notebook, wording
from fedkd.runs.scores import ACCURACY_ALONE
from fedkd.tasks import Figures

_TITLE, _FIGURES = 12, 36
"""Characters of a title at least; of what stands beside it, a short bar included."""
_BESIDE = "\N{NO-BREAK SPACE}"
_SHOWN = 16
"""Clients at work that are listed; a federation may have thousands."""


class Display:
    """An observer that draws. Use it as a context manager."""

    def __init__(
        self, console: Console, *, title: str, rounds: int, score: Figures = ACCURACY_ALONE[0]
    ) -> None:
        self._score = score
        self._console = console
        self._begins = f"{title}, {wording.plural(rounds, 'round')}"
        self._lock = threading.Lock()
        self._working: dict[int, str] = {}
        self._failed: dict[int, str] = {}
        self._waiting = 0
        self._asked, self._over = 0, 0
        self._server = ""
        self._progress = Progress(
            TextColumn(
                "[bold]{task.description}",
                table_column=Column(no_wrap=True, max_width=max(_TITLE, console.width - _FIGURES)),
            ),
            BarColumn(bar_width=None, table_column=Column(max_width=40)),
            MofNCompleteColumn(),
            TextColumn("rounds"),
            TimeElapsedColumn(),
        )
        self._task = self._progress.add_task(title, total=rounds)
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
        if not self._asked and not notebook.redraws(self._console):
            self._say(self._begins)
        with self._lock:
            self._working, self._failed, self._waiting = {}, {}, len(cohort)
            if not self._asked:
                self._over = round - 1
            self._asked = round
        self._progress.update(self._task, completed=self._over)

    def client_does(self, client: int, phase: str, done: int, total: int) -> None:
        """See `Observer`."""
        with self._lock:
            self._working[client] = step_in_words(phase, done, total)

    def client_ends(self, client: int, failure: str | None) -> None:
        """See `Observer`."""
        with self._lock:
            self._waiting -= 1
            self._working.pop(client, None)
            if failure is not None:
                self._failed[client] = failure

    def server_does(self, phase: str, done: int, total: int) -> None:
        """See `Observer`."""
        self._server = step_in_words(phase, done, total)

    def round_ends(self, record: Record) -> None:
        """See `Observer`."""
        self._server, self._over = "", record["round"]
        self._progress.update(self._task, completed=record["round"])
        if self._console.is_terminal:
            self._say(fitted(round_in_parts(record, self._score), self._console.width))
        else:
            self._say(round_in_words(record, self._score))

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

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
        if not self._asked and not self._server:
            rows.add_row(Text("  preparing data, models and clients", style="dim"), "")
        if self._server:
            its = f", round {self._over + 1}" if ahead else ""  # clients are at the next
            rows.add_row(Text(f"  server{its}", style="magenta"), self._server)
        return Group(self._progress, rows)


def round_in_words(record: Record, score: Figures = ACCURACY_ALONE[0]) -> str:
    """A round in one line, for a log."""
    return "  ".join(round_in_parts(record, score))


def fitted(parts: Sequence[str], width: int) -> str:
    """Parts beside each other in lines of so many characters, the later ones indented.

    None is broken that fits a line of its own.
    """
    indent = " " * 11
    room = width - len(indent)
    whole = [each.replace(" ", _BESIDE) if len(each) <= room else each for each in parts]
    text = textwrap.fill("  ".join(whole), width, subsequent_indent=indent)
    return text.replace(_BESIDE, " ")


def round_in_parts(record: Record, score: Figures = ACCURACY_ALONE[0]) -> list[str]:
    """What there is to say of a round, part by part."""
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
    return parts
