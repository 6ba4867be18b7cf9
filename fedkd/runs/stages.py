"""The folder of a distillation's run: its trainings one by one, and how a run goes on from them.

A training (a stage) writes a line an epoch into `rounds.jsonl`, and its weights when it is over.
Lines of a stage without weights belong to one that was cut off; they are dropped on resume, and the
stage runs again, to the same bits.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from fedkd import rng
from fedkd.config import Distillation, load_distillation
from fedkd.data.types import Samples
from fedkd.errors import RunFolderError
from fedkd.exchange.codec import decode, encode
from fedkd.files import write_atomically
from fedkd.learning import evaluate
from fedkd.learning.loop import OnEpoch
from fedkd.methods.setting import Notify
from fedkd.runs.place import append, begin, check_free, check_same, write_json

_OWN = ("checkpoints", "environment.json", "inputs.json")


class StageFolder:
    """One distillation on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, distillation: Distillation, inputs: Mapping[str, Any], *, resume: bool) -> None:
        """Make the folder, or with `resume` go on in one that holds the same distillation.

        Args:
            distillation: complete.
            inputs: what identifies the data and the given weights.
            resume: whether to go on.

        Raises:
            RunFolderError: the folder exists and `resume` is off, or it holds another one.
        """
        check_free(self.path, _OWN, resume=resume)
        if (self.path / "config.toml").exists():
            check_same(self.path, distillation, load_distillation, free={"output"})
            kept = json.loads((self.path / "inputs.json").read_text(encoding="utf-8"))
            if kept != inputs:
                raise RunFolderError(
                    f"run folder {str(self.path)!r} was begun on other data or weights: its "
                    "inputs.json differs; restore them, or start again with another --out"
                )
        else:
            begin(self.path, self.path / "checkpoints")
            write_json(self.path / "inputs.json", inputs)
            write_atomically(self.path / "config.toml", distillation.to_toml())
        kept_lines = [each for each in self.records() if self.weights(each["stage"]).exists()]
        write_atomically(self._rounds, "".join(json.dumps(each) + "\n" for each in kept_lines))

    def records(self) -> list[dict[str, Any]]:
        """The epochs so far; a half line at the end was cut off."""
        if not self._rounds.exists():
            return []
        lines = self._rounds.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def weights(self, stage: str) -> Path:
        """Where a finished stage's weights are."""
        return self.path / "checkpoints" / f"{stage.replace(' ', '-')}.safetensors"

    def keep(self, record: Mapping[str, Any]) -> None:
        """Keep an epoch."""
        append(self._rounds, record)

    def finish(self, student: nn.Module, summary: Mapping[str, Any]) -> None:
        """Write what a run ends with."""
        write_atomically(self.path / "student.safetensors", encode(student.state_dict()))
        write_json(self.path / "summary.json", summary)

    @property
    def _rounds(self) -> Path:
        return self.path / "rounds.jsonl"


class Recorder:
    """Runs the stages of a run; see `fedkd.learning.lesson.Stage`."""

    def __init__(self, folder: StageFolder, test: Samples, seed: int, notify: Notify) -> None:
        self._folder, self._test, self._seed, self._notify = folder, test, seed, notify

    def __call__(
        self,
        name: str,
        model: nn.Module,
        train: Callable[[OnEpoch], object],
        *,
        epochs: int,
        scored: nn.Module | None = None,
    ) -> None:
        """Train, or take up what an earlier run trained."""
        file = self._folder.weights(name)
        self._notify(name, 0, epochs)
        if file.exists():
            model.load_state_dict(decode(file.read_bytes()))
            model.eval()
            self._notify(name, epochs, epochs)
            return
        started = time.perf_counter()

        def on_epoch(epoch: int, loss: float) -> None:
            nonlocal started
            seconds = time.perf_counter() - started
            accuracy = evaluate.accuracy(scored or model, self._test)
            known = None if math.isnan(loss) else loss  # a protected training tells no loss
            record = {"stage": name, "epoch": epoch, "loss": known, "accuracy": accuracy}
            self._folder.keep({**record, "seconds": seconds})
            self._notify(name, epoch, epochs)
            started = time.perf_counter()

        # What draws from torch's own generator, such as dropout, repeats as well.
        with rng.torch_default(rng.stream(self._seed, purpose=f"{name} global")):
            train(on_epoch)
        model.eval()
        write_atomically(file, encode(model.state_dict()))
