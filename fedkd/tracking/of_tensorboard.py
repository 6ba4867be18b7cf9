"""TensorBoard: event files in the run folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedkd.optional import load
from fedkd.tracking.base import Figures, TrackedRun


class EventFiles:
    """The event files of a run, open."""

    def __init__(self, writer: Any, parameters: Mapping[str, Any]) -> None:
        self._writer, self._parameters = writer, parameters

    def log(self, stage: str, step: int, figures: Figures) -> None:
        """See `Tracker`."""
        for name, value in figures.items():
            tag = f"{stage}/{name}" if stage else name.replace(".", "/", 1)
            self._writer.add_scalar(tag, value, step)
        self._writer.flush()

    def end(self, figures: Figures, _files: Sequence[Path], /, *, failed: bool) -> None:
        """See `Tracker`; there is no place for files, which stand in the run folder."""
        for name, value in figures.items():
            self._writer.add_scalar(name.replace(".", "/", 1), value, 0)
        if not failed:
            summaries = load("torch.utils.tensorboard.summary", extra="track")
            metrics = {name.replace(".", "/", 1): value for name, value in figures.items()}
            for each in summaries.hparams(dict(self._parameters), metrics):
                self._writer.file_writer.add_summary(each)
        self._writer.close()


def start(run: TrackedRun) -> EventFiles:
    """Open another event file; of a resumed run it takes the place of those before."""
    folder = run.store / "tensorboard"
    again = folder.exists()
    board = load("torch.utils.tensorboard", extra="track")
    # A purge of all steps: the rounds so far are told again, those that were dropped are not.
    writer = board.SummaryWriter(str(folder), purge_step=0 if again else None)
    return EventFiles(writer, run.parameters)
