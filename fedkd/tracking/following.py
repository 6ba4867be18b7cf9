"""Telling trackers of a run while it goes: what is new in its folder, each time that it says so."""

import importlib.util
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fedkd.config import Distillation, Experiment
from fedkd.errors import ConfigError
from fedkd.tracking import of_mlflow, of_tensorboard, of_wandb, told
from fedkd.tracking.base import Tracker, TrackedRun

_log = logging.getLogger(__name__)

OPEN: Mapping[str, Callable[[TrackedRun], Tracker]] = {
    "mlflow": of_mlflow.start,
    "tensorboard": of_tensorboard.start,
    "wandb": of_wandb.start,
}
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
        self._names = tuple(dict.fromkeys(config.output.track))
        privacy = config.privacy
        private = privacy is not None and privacy.epsilon is not None
        self._run = TrackedRun(folder, config.name, told.parameters(config), private)
        self._open: dict[str, Tracker] | None = None
        self._place = 0

    def look(self) -> None:
        """Tell what lines are new, by trackers that are opened first."""
        if self._open is None:
            self._open = {}
            for name in self._names:
                self._try(name, self._start)
        for stage, step, figures in self._new():
            for name in self._trackers:
                self._try(name, lambda n: self._trackers[n].log(stage, step, figures))  # noqa: B023

    def end(self, *, failed: bool) -> None:
        """Tell how the run ended; one that never began is not told."""
        folder = self._run.folder
        if self._open is None and (failed or not (folder / "summary.json").exists()):
            return
        self.look()
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
