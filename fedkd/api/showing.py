"""What a person sees while a call lasts: in a terminal, in a notebook, in a log."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from fedkd.clock import Notify
from fedkd.config import Distillation, Experiment
from fedkd.federation.answers import Observer, Unwatched
from fedkd.jobs.planned import PlannedRun
from fedkd.reports import bar
from fedkd.reports.display import Display
from fedkd.tasks import headline

Progress = bool | Console
"""Whether rounds and phases are shown as they go, or where."""


@contextmanager
def rounds(experiment: Experiment, progress: Progress) -> Iterator[Observer]:
    """What is told of a federation's rounds, and shows them."""
    if (console := _console(progress)) is None:
        yield Unwatched()
        return
    title = f"{experiment.name}: {experiment.method.name}, seed {experiment.seed}"
    score = headline(experiment.task)
    display = Display(console, title=title, rounds=experiment.rounds, score=score)
    with _warnings(console), display:
        yield display


@contextmanager
def one_of_several(run: PlannedRun, progress: Progress) -> Iterator[Any]:
    """What is told of one run of a comparison or a sweep, and shows it."""
    if isinstance(run.config, Distillation):
        with phases(progress) as notify:
            yield notify
    else:
        with rounds(run.config, progress) as observer:
            yield observer


@contextmanager
def phases(progress: Progress) -> Iterator[Notify]:
    """What is told of phases and their steps, and shows them."""
    if (console := _console(progress)) is None:
        yield lambda *_: None
        return
    with _warnings(console), bar.progress(console) as notify:
        yield notify


def _console(progress: Progress) -> Console | None:
    if isinstance(progress, Console):
        return progress
    return Console() if progress else None


class _Shown(logging.Handler):
    """Prints warnings, each text once."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        text = record.getMessage()
        if text not in self._said:
            self._said.add(text)
            self._console.print(f"warning: {text}", markup=False, highlight=False)


@contextmanager
def _warnings(console: Console) -> Iterator[None]:
    """Show what the library warns of, where nobody has said what becomes of it."""
    log, shown = logging.getLogger("fedkd"), _Shown(console)
    heard = any(not isinstance(each, logging.NullHandler) for each in log.handlers)
    if heard or logging.getLogger().handlers:
        yield
        return
    log.addHandler(shown)
    try:
        yield
    finally:
        log.removeHandler(shown)
