"""The seam: what a tracker gets of a run, and what it must do."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fedkd.files import make_folder, write_atomically

Figures = Mapping[str, float]
"""Numbers by dotted name."""


@dataclass(frozen=True)
class TrackedRun:
    """A run as trackers know it."""

    folder: Path
    name: str
    """The experiment's, which several runs may have."""
    parameters: Mapping[str, Any]
    """The configuration, flat: strings, numbers and truths by dotted key."""
    private: bool
    """Whether a privacy budget is kept, so that what the report counts stays in the run folder."""

    @property
    def title(self) -> str:
        """Its own name, its folder's."""
        return self.folder.resolve().name

    @property
    def store(self) -> Path:
        """Where trackers keep their files, unless the environment names a place."""
        return self.folder / "tracking"

    def kept(self, tracker: str) -> dict[str, Any]:
        """What a tracker kept by `keep`, when the run was begun; empty where it kept nothing."""
        file = self.store / f"{tracker}.json"
        return dict(json.loads(file.read_text("utf-8"))) if file.exists() else {}

    def keep(self, tracker: str, known: Mapping[str, Any]) -> None:
        """Keep what a resumed run needs to go on as the same run of a tracker."""
        make_folder(self.store)
        write_atomically(self.store / f"{tracker}.json", json.dumps(known) + "\n", durable=False)


class Tracker(Protocol):
    """One library's run, open. What it raises is a warning, and the last that it is asked."""

    def log(self, stage: str, step: int, figures: Figures) -> None:
        """Take the figures of a round, or of an epoch of a stage.

        A resumed run is told all of its rounds again; a tracker shows each once.
        """

    def end(self, figures: Figures, files: Sequence[Path], /, *, failed: bool) -> None:
        """Take what the run ended with; without figures and files if it failed."""
