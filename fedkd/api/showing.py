"""What a person sees while a call lasts: in a terminal, in a notebook, in a log."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console

from fedkd.clock import Notify
from fedkd.config import Distillation, Experiment
from fedkd.reports import bar
from fedkd.warning_log import Warnings

if TYPE_CHECKING:
    from fedkd.federation.answers import Observer
    from fedkd.jobs.planned import PlannedRun

Progress = bool | Console | Callable[[], Console]
"""Whether rounds and phases are shown as they go; or where, known once there is something."""


@contextmanager
def rounds(experiment: Experiment, progress: Progress) -> "Iterator[Observer]":
    """What is told of a federation's rounds, and shows them."""
    from fedkd.federation.answers import Unwatched
    from fedkd.reports.display import Display
    from fedkd.tasks import headline

    if (console := _console(progress)) is None:
        yield Unwatched()
        return
    title = f"{experiment.name}: {experiment.method.name}, seed {experiment.seed}"
    score = headline(experiment.task)
    display = Display(console, title=title, rounds=experiment.rounds, score=score)
    with _warnings(console), display:
        yield display


@contextmanager
def one_of_several(run: "PlannedRun", progress: Progress) -> Iterator[Any]:
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
    if isinstance(progress, bool):
        return Console() if progress else None
    return progress if isinstance(progress, Console) else progress()


@contextmanager
def _warnings(console: Console) -> Iterator[None]:
    """Show what the library warns of, where nobody has said what becomes of it."""
    log = logging.getLogger("fedkd")
    shown = Warnings(partial(console.print, markup=False, highlight=False))
    heard = any(not isinstance(each, logging.NullHandler) for each in log.handlers)
    if heard or logging.getLogger().handlers:
        yield
        return
    log.addHandler(shown)
    try:
        yield
    finally:
        log.removeHandler(shown)
