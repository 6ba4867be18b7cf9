"""The folder of a distillation's run: its trainings one by one, and how a run goes on from them.

A training (a stage) writes a line an epoch into `rounds.jsonl`, its weights when it is over, and
last its name into `checkpoints/stages.json`, which names all files by their SHA-256. That file is
there from the beginning, when no stage is finished. What it does not name belongs to a stage that
was cut off; its lines are dropped on resume, and it runs again, to the same bits.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedkd import devices, rng
from fedkd.clock import Notify
from fedkd.config import Distillation, load_distillation, validate
from fedkd.data.types import Samples
from fedkd.errors import ConfigError, MessageError, RunFolderError
from fedkd.exchange.codec import decode, encode
from fedkd.files import storing, write_atomically
from fedkd.learning import evaluate
from fedkd.learning.loop import OnEpoch
from fedkd.privacy.ledger import Anchor, Ledger
from fedkd.runs import manifest
from fedkd.runs.common import (
    ENVIRONMENT,
    append_json,
    begin,
    check_free,
    check_same,
    differing,
    kept_config,
    read_environment,
    read_json,
    warn_of_device,
    write_json,
)
from fedkd.runs.manifest import Namer, cannot_resume, check_ledger
from fedkd.tasks import Score

log = logging.getLogger(__name__)

_INPUTS, _ROUNDS = "inputs.json", "rounds.jsonl"
_STAGES = "checkpoints/stages.json"
_OWN = ("checkpoints", ENVIRONMENT, _INPUTS)
_FREE = {"engine", "output"}
"""Where a run runs and is kept may change on resume."""


class StageFolder:
    """One distillation on disk.

    Args:
        path: the run folder.
        distillation: complete.
        ledger: of what is spent; None where nothing is protected.
        device: where its models learn.
    """

    def __init__(
        self,
        path: Path,
        distillation: Distillation,
        *,
        ledger: Path | None = None,
        device: torch.device = devices.CPU,
    ) -> None:
        self.path = path
        self._distillation = distillation
        self._ledger = ledger
        self._device = device
        self._finished: list[str] = []
        self._name = Namer(path)

    def open(self, inputs: Mapping[str, Any], *, resume: bool) -> None:
        """Make the folder, or with `resume` go on in one that holds the same distillation.

        Args:
            inputs: what identifies the data and the given weights.
            resume: whether to go on.

        Raises:
            RunFolderError: the folder exists and `resume` is off, or it does not; it holds another
                distillation, or what it says of it is damaged.
        """
        check_free(self.path, _OWN, resume=resume)
        if (self.path / "config.toml").exists():
            kept = kept_config(self.path, load_distillation)
            check_same(self.path, self._distillation, kept, free=_FREE)
            if read_json(self.path, _INPUTS) != inputs:
                raise RunFolderError(
                    f"run folder {str(self.path)!r} was begun on other data or weights: its "
                    f"{_INPUTS} differs; restore them, or start again with another --out"
                )
            warn_of_device(self.path, (self._device,))
            return
        begin(self.path, self.path / "checkpoints", (self._device,))
        write_json(self.path / _INPUTS, inputs)
        self._name_files(None)
        write_atomically(self.path / "config.toml", self._distillation.to_toml())

    def resume(self) -> None:
        """Look at all that finished stages left, and drop what a cut-off one did.

        Raises:
            RunFolderError: names a file that is missing, damaged or another run's.
        """
        if (self.path / _STAGES).exists():
            written, head = self._check_stages()
            whole = self._whole_lines()[:written]
        elif read_environment(self.path).layout > 1:
            raise cannot_resume(self.path, f"its {_STAGES} is missing")
        else:
            log.warning(
                "run folder %s: it is an earlier fedkd's, which names no files: whether they are "
                "damaged is not known",
                self.path,
            )
            whole, head = self._of_finished(), None
        if self._ledger is not None and (self._finished or head or self._ledger.exists()):
            check_ledger(self.path, self._ledger, () if head is None else (head,))
        write_atomically(self.path / _ROUNDS, whole)

    def records(self) -> list[dict[str, Any]]:
        """The epochs so far."""
        return [json.loads(line) for line in self._whole_lines().splitlines()]

    def finished(self, stage: str) -> bool:
        """Whether a stage is over and its weights are kept."""
        return stage in self._finished

    def weights(self, stage: str) -> Path:
        """Where a finished stage's weights are."""
        return self.path / "checkpoints" / f"{stage.replace(' ', '-')}.safetensors"

    def keep(self, record: Mapping[str, Any]) -> None:
        """Keep an epoch."""
        append_json(self.path / _ROUNDS, record)

    def finish_stage(self, stage: str, model: nn.Module) -> None:
        """Keep a finished stage: its weights first, then its name."""
        write_atomically(self.weights(stage), encode(devices.state_dict(model)))
        self._finished.append(stage)
        self.name_files()

    def name_files(self) -> None:
        """Name what finished stages left, and where the ledger stands.

        Raises:
            StorageError: it does not reach the disk.
            LedgerError: the ledger was changed.
        """
        self._name_files(None if self._ledger is None else Ledger(self._ledger).head)

    def _name_files(self, head: Anchor | None) -> None:
        files = [self.path / name for name in (ENVIRONMENT, _INPUTS, _ROUNDS)]
        files = [file for file in files if file.exists()]
        files += [self.weights(each) for each in self._finished]
        content = {
            "stages": self._finished,
            "distillation": self._distillation.model_dump(mode="json", exclude_none=True),
            "files": manifest.to_json(self._name(files)),
            "ledger": None if head is None else [head.sequence, head.digest],
        }
        write_json(self.path / _STAGES, content | {"sha256": manifest.digest(content)})

    def take_up(self, stage: str, model: nn.Module) -> None:
        """Give a model the weights that a finished stage left.

        Raises:
            RunFolderError: they are damaged.
        """
        file = self.weights(stage)
        try:
            with storing(file):
                model.load_state_dict(decode(file.read_bytes()))
        except (MessageError, RuntimeError) as error:
            name = f"{file.parent.name}/{file.name}"
            raise cannot_resume(self.path, f"its {name} is damaged") from error

    def finish(self, student: nn.Module, summary: Mapping[str, Any]) -> None:
        """Write what a run ends with."""
        write_atomically(self.path / "student.safetensors", encode(devices.state_dict(student)))
        write_json(self.path / "summary.json", summary)

    def _check_stages(self) -> tuple[int, Anchor | None]:
        """Look at all that is named; how many bytes of `rounds.jsonl` finished stages wrote.

        And where the ledger stood, if there was one.
        """
        content = read_json(self.path, _STAGES)
        try:
            if content.pop("sha256") != manifest.digest(content):
                raise ValueError("Expected another SHA-256.")
            its = validate(Distillation, content["distillation"])
            files = manifest.from_json(content["files"])
            head = None if content["ledger"] is None else Anchor(*content["ledger"])
            self._finished = [str(stage) for stage in content["stages"]]
            written = files[_ROUNDS].size if self._finished else 0
        except (AttributeError, ConfigError, KeyError, TypeError, ValueError) as error:
            raise cannot_resume(self.path, f"its {_STAGES} is damaged") from error
        if keys := differing(self._distillation, its, free=_FREE):
            raise cannot_resume(
                self.path,
                f"its {_STAGES} is of another distillation than config.toml (it differs in "
                f"{', '.join(keys)})",
            )
        manifest.check(self.path, files, self.path / _STAGES)
        return written, head

    def _of_finished(self) -> bytes:
        """The lines of those stages whose weights are there, of which nothing else tells."""
        try:
            records = [json.loads(line) for line in self._whole_lines().splitlines()]
            stages = dict.fromkeys(str(each["stage"]) for each in records)
        except (KeyError, TypeError, ValueError) as error:
            raise cannot_resume(self.path, f"its {_ROUNDS} is damaged") from error
        self._finished = [stage for stage in stages if self.weights(stage).exists()]
        lines = [json.dumps(each) for each in records if each["stage"] in self._finished]
        return "".join(f"{line}\n" for line in lines).encode()

    def _whole_lines(self) -> bytes:
        """`rounds.jsonl` without the half line that a killed writer left."""
        file = self.path / _ROUNDS
        with storing(file):
            lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
        return b"".join(line for line in lines if line.endswith(b"\n"))


class StageRecorder:
    """Runs the stages of a run; see `fedkd.learning.ways.base.Stage`."""

    def __init__(
        self,
        folder: StageFolder,
        test: Samples,
        scores: Sequence[Score],
        seed: int,
        notify: Notify,
    ) -> None:
        self._folder, self._test, self._seed, self._notify = folder, test, seed, notify
        self._scores = scores

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
        self._notify(name, 0, epochs)
        if self._folder.finished(name):
            self._folder.take_up(name, model)
            model.eval()
            self._notify(name, epochs, epochs)
            return
        started = time.perf_counter()

        def by_stage(tested: nn.Module) -> dict[str, Any]:
            if self._test.stage is None:
                return {}
            count = int(self._test.stage.max()) + 1
            return {"stages": evaluate.by_stage(tested, self._test, count, self._scores[0])}

        def on_epoch(epoch: int, loss: float) -> None:
            nonlocal started
            seconds = time.perf_counter() - started
            found = evaluate.score(scored or model, self._test, self._scores)
            known = None if math.isnan(loss) else loss  # a protected training tells no loss
            record = {"stage": name, "epoch": epoch, "loss": known}
            numbers = {score.figure: found[score.figure] for score in self._scores}
            self._folder.keep(
                {**record, **numbers, **by_stage(scored or model), "seconds": seconds}
            )
            self._notify(name, epoch, epochs)
            started = time.perf_counter()

        # What draws from torch's own generator, such as dropout, repeats as well.
        draws = rng.stream(self._seed, purpose=f"{name} global")
        with rng.torch_default(draws, devices.of(model)):
            train(on_epoch)
        model.eval()
        self._folder.finish_stage(name, model)
