"""Telling trackers of a run while it goes: what is new in its folder, each time that it says so."""

import importlib.util
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from fedkd.config import Distillation, Experiment
from fedkd.errors import ConfigError
from fedkd.tracking import of_mlflow, of_tensorboard, of_wandb, told
from fedkd.tracking.base import TrackedRun, Tracker

_log = logging.getLogger(__name__)

OPEN: Mapping[str, Callable[[TrackedRun], Tracker]] = {
    "mlflow": of_mlflow.start,
    "tensorboard": of_tensorboard.start,
    "wandb": of_wandb.start,
}
_PATIENCE = 120
"""Seconds that a run which has ended waits for its trackers."""
_FILES = ("config.toml", "summary.json", "report.html")


def check(config: Experiment | Distillation) -> None:
    """Refuse a tracker that is not installed.

    Raises:
        ConfigError: with the remedy.
    """
    for name in config.output.track:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"output.track names {name!r}, which is not installed: pip install 'fedkd[track]'"
            )


@contextmanager
def tracked(config: Experiment | Distillation, folder: Path) -> Iterator[Callable[[], None]]:
    """What is to be called each time that a run has begun or kept something.

    The first call opens the trackers, so it comes after the run folder is made, and after
    processes are forked, which would have a tracker's threads amiss. When the block ends trackers
    are told how: the summary and the report, or that it failed.

    Args:
        config: complete, as the run keeps it.
        folder: the run folder.
    """
    if not config.output.track:
        yield lambda: None
        return
    telling = _Telling(config, folder)
    try:
        yield telling.look
    except BaseException:
        telling.end(failed=True)
        raise
    telling.end(failed=False)


class _Telling:
    """The trackers of a run, and how far its lines were told."""

    def __init__(self, config: Experiment | Distillation, folder: Path) -> None:
        self._names: tuple[str, ...] = tuple(dict.fromkeys(config.output.track))
        privacy = config.privacy
        private = privacy is not None and privacy.epsilon is not None
        self._run = TrackedRun(folder, config.name, told.parameters(config), private)
        self._open: dict[str, Tracker] | None = None
        self._place = 0
        # A thread of its own: no round waits for a library that loads, or a server that is slow.
        self._asked: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="fedkd-trackers", daemon=True)

    def look(self) -> None:
        """Have it told what lines are new; trackers are opened first."""
        if not self._thread.is_alive():
            self._thread.start()
        self._asked.put(self._tell)

    def end(self, *, failed: bool) -> None:
        """Have it told how the run ended, and wait for that; one that never began is not told."""
        begun = self._thread.is_alive()
        if not begun and (failed or not (self._run.folder / "summary.json").exists()):
            return
        self.look()
        self._asked.put(partial(self._end, failed=failed))
        self._asked.put(None)
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            _log.warning(
                "trackers have not taken all of the run in %s within %d seconds, and are left "
                "alone; its folder has all", self._run.folder, _PATIENCE,
            )  # fmt: skip

    def _work(self) -> None:
        while (ask := self._asked.get()) is not None:
            ask()

    def _tell(self) -> None:
        if self._open is None:
            self._open = {}
            for name in self._names:
                self._try(name, self._start)
        for stage, step, figures in self._new():
            for name in self._trackers:
                self._try(name, lambda n: self._trackers[n].log(stage, step, figures))  # noqa: B023

    def _end(self, *, failed: bool) -> None:
        folder = self._run.folder
        files = [] if failed else [folder / name for name in _FILES if (folder / name).exists()]
        figures = {}
        if not failed:
            figures = told.of_summary(json.loads((folder / "summary.json").read_text("utf-8")))
        for name in self._trackers:
            self._try(name, lambda n: self._trackers[n].end(figures, files, failed=failed))

    @property
    def _trackers(self) -> dict[str, Tracker]:
        return dict(self._open or {})

    def _start(self, name: str) -> None:
        if self._open is not None:
            self._open[name] = OPEN[name](self._run)

    def _try(self, name: str, ask: Callable[[str], None]) -> None:
        try:
            ask(name)
        except Exception as error:  # noqa: BLE001 - whatever a tracker raises, no run ends for it
            _log.warning(
                "tracker %s: %s: %s; the run goes on without it, and its folder has all",
                name, type(error).__name__, " ".join(str(error).split()),
            )  # fmt: skip
            if self._open is not None:
                self._open.pop(name, None)

    def _new(self) -> list[tuple[str, int, dict[str, float]]]:
        """The whole lines that were not told yet."""
        file = self._run.folder / "rounds.jsonl"
        if not file.exists():
            return []
        with file.open("rb") as content:
            content.seek(self._place)
            whole, _, _ = content.read().rpartition(b"\n")
        if not whole:
            return []
        self._place += len(whole) + 1
        return [told.of_line(json.loads(line)) for line in whole.split(b"\n")]
