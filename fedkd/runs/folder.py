"""A run's folder: what is written, in what order, and how a run goes on from it.

A round is appended to `rounds.jsonl` first and checkpointed second. A line beyond the checkpoint
belongs to a round that was cut off; it is dropped on resume and the round runs again, to the same
bits.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fedkd import config
from fedkd.config import Experiment
from fedkd.data.types import FederatedData, Samples
from fedkd.devices import CPU
from fedkd.errors import RunFolderError
from fedkd.exchange.codec import encode
from fedkd.exchange.messages import Tensors
from fedkd.federation.answers import Record
from fedkd.federation.server import Checkpoint
from fedkd.federation.state import may_be_ahead
from fedkd.federation.store import adopting
from fedkd.federation.store.run_states import RunStates
from fedkd.federation.wire import LedgerHead
from fedkd.files import storing, write_atomically
from fedkd.methods import find
from fedkd.rows import whole
from fedkd.runs import checkpoint as checkpoints
from fedkd.runs import examples, manifest
from fedkd.runs.checkpoint import Kept
from fedkd.runs.common import (
    ENVIRONMENT,
    append_json,
    begin,
    check_free,
    check_same,
    differing,
    kept_config,
    read_json,
    warn_of_device,
    write_json,
)
from fedkd.runs.manifest import Manifest, Namer, cannot_resume

log = logging.getLogger(__name__)

DEPLOYMENT = "deployment.json"
"""The file of a run that was deployed: who took part, and how it goes on (`submit.py`)."""
_PARTITION, _ROUNDS = "partition.json", "rounds.jsonl"
_GENERATED, _GENERATED_PER_CLASS = "generated.safetensors", 10
_OWN = ("checkpoints", ENVIRONMENT, _PARTITION)
_FINISHED = ("summary.json", "report.html", "student.safetensors", examples.FILE)
_FREE = {"engine", "output"}
"""Where and how fast a run runs does not change its result, so it may change on resume."""


class RunFolder:
    """One run on disk; the round loop's keeper."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.states = path / "checkpoints" / "clients"
        """Where the clients of a simulation keep their states."""
        self._experiment: Experiment | None = None
        self._name = Namer(path)
        self._states = RunStates(self.states)

    def open(
        self,
        experiment: Experiment,
        data: FederatedData,
        *,
        resume: bool,
        devices: Sequence[torch.device] = (CPU,),
    ) -> None:
        """Make the folder, or with `resume` go on in one that holds the same experiment.

        A finished run may go on for more rounds, where the rounds so far would have been the same.

        Raises:
            RunFolderError: the folder exists and `resume` is off, or it does not; it holds another
                experiment, or what it says of it is damaged.
        """
        check_free(self.path, _OWN, resume=resume)
        # In a deployment nobody sees the others' data, so nobody knows how it is split.
        counts = data.counts().tolist() if any(len(samples) for samples in data.clients) else []
        partition: dict[str, Any] = {"classes": list(data.counted_names), "counts": counts}
        if counts and data.targets != "classes":  # whose counts do not add up to them
            partition["sizes"] = [len(samples) for samples in data.clients]
        if data.scale:  # whoever uses the student scales alike
            partition["scale"] = {column: list(pair) for column, pair in data.scale.items()}
        if (self.path / "config.toml").exists():
            kept = kept_config(self.path, config.load)
            keys = differing(experiment, kept, free=_FREE)
            more = keys == ["rounds"] and experiment.rounds > kept.rounds
            if more:
                self._check_more(experiment, kept.rounds, deployed=not counts)
            check_same(self.path, experiment, kept, free=_FREE | ({"rounds"} if more else set()))
            self._experiment = experiment
            self._kept()
            self._check_data(partition)
            warn_of_device(self.path, devices)
            return
        self._experiment = experiment
        begin(self.path, self.states, devices)
        write_json(self.path / _PARTITION, partition)
        write_atomically(self.path / "config.toml", experiment.to_toml())

    def records(self) -> list[Record]:
        """The rounds so far."""
        path = self.path / _ROUNDS
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def resume(self) -> Checkpoint | None:
        """The last kept round; what later ones left, whole or half, is dropped.

        Every file that the run goes on from is looked at first.

        Raises:
            RunFolderError: names one that is missing, damaged or another run's.
            StorageError: one cannot be read, or answers that a cut-off round left are damaged.
        """
        kept, rounds = self._kept(), self.path / _ROUNDS
        if kept is None:
            adopting.adopt(self.states)
            self._check_begun(rounds)
            self._states.forget(None)
            adopting.drop(self.states)
            write_atomically(rounds, "")
            return None
        checkpoint = kept.checkpoint
        if kept.files is None:
            log.warning(
                "run folder %s: its checkpoint is an earlier fedkd's, which names no files: "
                "whether they are damaged is not known",
                self.path,
            )
            whole = manifest.unnamed_rounds(rounds, self.path, checkpoint.round)
            adopting.adopt(self.states)
        else:
            manifest.check(self.path, kept.files, self._checkpoint)
            whole = rounds.read_bytes()[: kept.files[_ROUNDS].size]
            if kept.states is None and adopting.adopt(self.states):
                kept = self._adopted(kept, kept.files)
            if fault := kept.states and self._states.fault(kept.states, checkpoint):
                raise cannot_resume(self.path, f"its {fault}")
            self._states.forget(checkpoint, kept.states)
        adopting.drop(self.states)
        self._plan_more(kept)
        write_atomically(rounds, whole)
        return checkpoint

    def last(self) -> Checkpoint | None:
        """The last kept round as its checkpoint has it, whatever became of other files.

        Raises:
            RunFolderError: the checkpoint is damaged.
        """
        kept = self._kept()
        return None if kept is None else kept.checkpoint

    def ledger_heads(self) -> Mapping[int, LedgerHead]:
        """Where each client's ledger stood when the last kept round ended.

        Raises:
            RunFolderError: the checkpoint is damaged.
        """
        last = self.last()
        return {} if last is None else last.ledger_heads

    def keep(self, record: Record, checkpoint: Checkpoint, generated: Samples | None) -> None:
        """Keep a finished round: its line first, then the checkpoint, which names all the rest.

        It does not name the images of a generator: no resume reads them, and each round writes over
        them, so that a kill right after would leave others.

        Raises:
            StorageError: it cannot be kept.
        """
        if generated is not None:
            some = generated.last_of_each_class(_GENERATED_PER_CLASS)
            write_atomically(self.path / _GENERATED, encode({"x": whole(some.x), "y": some.y}))
        append_json(self.path / _ROUNDS, record)
        files = [self.path / name for name in (ENVIRONMENT, _PARTITION, _ROUNDS)]
        kept = Kept(checkpoint, self._experiment, self._name(files), self._states.name(checkpoint))
        write_atomically(self._checkpoint, checkpoints.write(kept))
        self._states.sweep()

    def finish(self, student: Tensors, summary: Mapping[str, Any]) -> None:
        """Write what a run ends with."""
        write_atomically(self.path / "student.safetensors", encode(student))
        write_json(self.path / "summary.json", summary)

    def released(self) -> list[dict[str, Any]]:
        """What left the clients, by field and provenance, from the clients' own receipts."""
        return self._states.released()

    @property
    def _checkpoint(self) -> Path:
        return self.path / "checkpoints" / "server.safetensors"

    def _kept(self) -> Kept | None:
        """The checkpoint; None where there is none.

        Raises:
            RunFolderError: it is damaged, or of another experiment than the one that is open.
        """
        file = self._checkpoint
        if not file.exists():
            return None
        kept = checkpoints.read(file, self.path)
        experiment, its = self._experiment, kept.experiment
        if experiment is not None and its is not None:
            more = experiment.rounds > its.rounds == kept.checkpoint.round
            keys = differing(experiment, its, free=_FREE | ({"rounds"} if more else set()))
            if keys:
                raise cannot_resume(
                    self.path,
                    f"its {_name(file)} is of another experiment than config.toml (it differs in "
                    f"{', '.join(keys)})",
                )
        return kept

    def _adopted(self, kept: Kept, files: Manifest) -> Kept:
        """Name the store in place of the files that it was made of."""
        own = {
            name: each
            for name, each in files.items()
            if self.states not in (self.path / name).parents
        }
        kept = replace(kept, files=own, states=self._states.name(kept.checkpoint))
        write_atomically(self._checkpoint, checkpoints.write(kept))
        return kept

    def _check_begun(self, rounds: Path) -> None:
        """Refuse to begin anew where a checkpoint was lost.

        A first round that was cut off may have left a line, states and receipts; or two, ahead.
        """
        lines = rounds.read_bytes().count(b"\n") if rounds.exists() else 0
        last = 1 + (may_be_ahead(self._experiment) if self._experiment else 0)
        ended = (self.path / "summary.json").exists()
        if lines > 1 or self._states.last_round() > last or ended:
            raise cannot_resume(self.path, f"its {_name(self._checkpoint)} is missing")

    def _check_more(self, experiment: Experiment, done: int, *, deployed: bool) -> None:
        """Refuse more rounds than a run was planned for, unless they change nothing of it so far.

        Raises:
            RunFolderError: with the reason.
        """
        kept = self._kept()
        rounds = 0 if kept is None else kept.checkpoint.round
        why = ""
        if rounds < done:
            why = f"it holds {rounds} of {done} rounds: finish it with rounds = {done} first"
        elif schedule := find(experiment.method.name).card.schedule:
            why = f"method {experiment.method.name!r} plans {schedule} over all rounds"
        elif experiment.privacy.unit != "none":
            why = "under [privacy] the noise and the ledgers' plan are for all rounds together"
        elif deployed:
            why = "sites keep their teachers for the experiment as it was submitted"
        if why:
            raise RunFolderError(
                f"run folder {str(self.path)!r} was planned for {done} rounds and cannot go on to "
                f"{experiment.rounds}: {why}; or name another folder with --out"
            )

    def _plan_more(self, kept: Kept) -> None:
        """Plan a finished run for more rounds, if it is asked for more than it had."""
        experiment = self._experiment
        if experiment is None or experiment.rounds <= config.load(self.path / "config.toml").rounds:
            return
        # In this order, so that killed in between it is asked for the same again.
        write_atomically(self._checkpoint, checkpoints.write(replace(kept, experiment=experiment)))
        with storing(self.path):
            for name in _FINISHED:
                (self.path / name).unlink(missing_ok=True)
        write_atomically(self.path / "config.toml", experiment.to_toml())

    def _check_data(self, partition: Mapping[str, Any]) -> None:
        if read_json(self.path, _PARTITION) != partition:
            raise RunFolderError(
                f"run folder {str(self.path)!r} was begun on other data: its {_PARTITION} is not "
                "what the experiment gives now; restore the data, or start again with another --out"
            )


def _name(checkpoint: Path) -> str:
    return f"{checkpoint.parent.name}/{checkpoint.name}"
