"""A run's folder: what is written, in what order, and how a run goes on from it.

A round is appended to `rounds.jsonl` first and checkpointed second. A line beyond the checkpoint
belongs to a round that was cut off; it is dropped on resume and the round runs again, to the same
bits.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from fedkd import config
from fedkd.config import Experiment
from fedkd.data.types import FederatedData, Samples
from fedkd.errors import RunFolderError
from fedkd.exchange.codec import encode
from fedkd.exchange.messages import Broadcast, Tensors, group, prefixed
from fedkd.federation.answers import Record
from fedkd.federation.rounds import Checkpoint
from fedkd.federation.state import DiskState
from fedkd.federation.wire import Standing
from fedkd.files import write_atomically
from fedkd.runs.place import append, begin, check_free, check_same, write_json

DEPLOYMENT = "deployment.json"
"""The file of a run that was deployed: who took part, and how it goes on (`submit.py`)."""
_GENERATED_PER_CLASS = 10
_OWN = ("checkpoints", "environment.json", "partition.json")


class RunFolder:
    """One run on disk; the round loop's keeper."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def states(self) -> Path:
        """Where the clients of a simulation keep their states."""
        return self.path / "checkpoints" / "clients"

    def open(self, experiment: Experiment, data: FederatedData, *, resume: bool) -> None:
        """Make the folder, or with `resume` go on in one that holds the same experiment.

        Raises:
            RunFolderError: the folder exists and `resume` is off, or it holds another experiment.
        """
        check_free(self.path, _OWN, resume=resume)
        # In a deployment nobody sees the others' data, so nobody knows how it is split.
        counts = data.counts().tolist() if any(len(own) for own in data.clients) else []
        partition: dict[str, Any] = {"classes": list(data.class_names), "counts": counts}
        if data.scale:  # whoever uses the student scales alike
            partition["scale"] = {column: list(pair) for column, pair in data.scale.items()}
        if (self.path / "config.toml").exists():
            # Where and how fast a run runs does not change its result, so it may change on resume.
            check_same(self.path, experiment, config.load, free={"engine", "output"})
            self._check_data(partition)
            return
        begin(self.path, self.states)
        write_json(self.path / "partition.json", partition)
        write_atomically(self.path / "config.toml", experiment.to_toml())

    def records(self) -> list[Record]:
        """The rounds so far."""
        path = self.path / "rounds.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def resume(self) -> Checkpoint | None:
        """The last kept round; lines of later ones, whole or half, are dropped."""
        path, rounds = self._checkpoint, self.path / "rounds.jsonl"
        if not path.exists():
            write_atomically(rounds, "")
            return None
        try:
            checkpoint = _read_checkpoint(path)
            lines = rounds.read_text(encoding="utf-8").splitlines(keepends=True)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise RunFolderError(
                f"run folder {str(self.path)!r} cannot be resumed: its checkpoint or rounds.jsonl "
                f"is damaged ({type(error).__name__}); start again with another --out"
            ) from error
        if len(lines) < checkpoint.round:
            raise RunFolderError(
                f"run folder {str(self.path)!r} cannot be resumed: rounds.jsonl has {len(lines)} "
                f"of {checkpoint.round} rounds; start again with another --out"
            )
        write_atomically(rounds, "".join(lines[: checkpoint.round]))
        return checkpoint

    def standings(self) -> Mapping[int, Standing]:
        """Where each client's ledger stood when the last kept round ended."""
        return _read_checkpoint(self._checkpoint).standings if self._checkpoint.exists() else {}

    def keep(self, record: Record, checkpoint: Checkpoint, generated: Samples | None) -> None:
        """Keep a finished round."""
        if generated is not None:
            write_atomically(self.path / "generated.safetensors", encode(_some_of_each(generated)))
        append(self.path / "rounds.jsonl", record)
        write_atomically(self._checkpoint, _write_checkpoint(checkpoint))

    def finish(self, student: Tensors, summary: Mapping[str, Any]) -> None:
        """Write what a run ends with."""
        write_atomically(self.path / "student.safetensors", encode(student))
        write_json(self.path / "summary.json", summary)

    def released(self) -> list[dict[str, Any]]:
        """What left the clients, by field and provenance, from the clients' own receipts."""
        totals: dict[tuple[str, str], dict[str, Any]] = {}
        for folder in sorted(self.states.iterdir()):
            for receipts in DiskState(folder).receipts().values():
                for receipt in receipts:
                    key = (receipt["field"], receipt["provenance"])
                    total = totals.setdefault(key, {"times": 0, "bytes": 0})
                    total["times"] += 1
                    total["bytes"] += receipt["bytes"]
        return [{"field": f, "provenance": p, **total} for (f, p), total in totals.items()]

    @property
    def _checkpoint(self) -> Path:
        return self.path / "checkpoints" / "server.safetensors"

    def _check_data(self, partition: Mapping[str, Any]) -> None:
        kept = self.path / "partition.json"
        if not kept.exists() or json.loads(kept.read_text(encoding="utf-8")) != partition:
            raise RunFolderError(
                f"run folder {str(self.path)!r} was begun on other data: its partition.json is not "
                "what the experiment gives now; restore the data, or start again with another --out"
            )


def _write_checkpoint(checkpoint: Checkpoint) -> bytes:
    models = list(checkpoint.broadcast.by_model)
    tensors = {
        **prefixed("student", checkpoint.student),
        **prefixed("state", checkpoint.state),
        **prefixed("common", checkpoint.broadcast.common),
    }
    for index, model in enumerate(models):
        tensors |= prefixed(f"model-{index}", checkpoint.broadcast.by_model[model])
    for client, own in checkpoint.broadcast.by_client.items():
        tensors |= prefixed(f"client-{client}", own)
    metadata = {
        "round": str(checkpoint.round),
        "models": json.dumps(models),
        "clients": json.dumps(list(checkpoint.broadcast.by_client)),
        "standings": json.dumps({c: asdict(at) for c, at in checkpoint.standings.items()}),
    }
    return encode(tensors, metadata)


def _read_checkpoint(path: Path) -> Checkpoint:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    models = json.loads(metadata["models"])
    by_model = {model: group(f"model-{index}", tensors) for index, model in enumerate(models)}
    by_client = {c: group(f"client-{c}", tensors) for c in json.loads(metadata["clients"])}
    return Checkpoint(
        round=int(metadata["round"]),
        student=group("student", tensors),
        state=group("state", tensors),
        broadcast=Broadcast(group("common", tensors), by_model, by_client),
        standings={
            int(client): Standing(**at) for client, at in json.loads(metadata["standings"]).items()
        },
    )


def _some_of_each(generated: Samples) -> dict[str, torch.Tensor]:
    chosen = [
        (generated.y == label).nonzero().flatten()[-_GENERATED_PER_CLASS:]
        for label in sorted(set(generated.y.tolist()))
    ]
    some = generated.subset(torch.cat(chosen))
    return {"x": some.x, "y": some.y}
