"""A finished run's student, of a federation or of one party, and what it was tested on."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from fedkd import config, data, models, rng
from fedkd.config import Distillation, Experiment
from fedkd.data import columns
from fedkd.data.types import Dataset
from fedkd.errors import ConfigError, MessageError, RunFolderError
from fedkd.exchange.codec import decode
from fedkd.learning import prepared


@dataclass(frozen=True)
class Student:
    """A run's student.

    Attributes:
        name: the experiment's.
        model: in evaluation mode.
        data: what it was tested on, with the columns that it sees.
    """

    name: str
    model: nn.Module
    data: Dataset


def is_distillation(run: Path) -> bool:
    """Whether a run folder is one party's distillation.

    Raises:
        RunFolderError: it is no run folder.
    """
    if not (run / "config.toml").is_file():
        raise RunFolderError(
            f"run folder {str(run)!r} has no config.toml: give a folder that fedkd wrote"
        )
    return "way" in config.read(run / "config.toml")


def load(run: Path) -> Student:
    """Read a run's student.

    Raises:
        RunFolderError: it is no run folder, unfinished, or not of what its config.toml says.
        DataError: its data is not here.
    """
    file = run / "student.safetensors"
    kind = is_distillation(run)
    if not file.is_file():
        raise RunFolderError(
            f"run folder {str(run)!r} has no student.safetensors: the run is unfinished; "
            "finish it with --resume"
        )
    try:
        told = (config.load_distillation if kind else config.load)(run / "config.toml")
        fresh = _distilled(told) if isinstance(told, Distillation) else _federated(told)
        fresh.model.load_state_dict(decode(file.read_bytes()))
    except (ConfigError, MessageError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise RunFolderError(f"run folder {str(run)!r}: {reason}; run it again") from error
    fresh.model.requires_grad_(requires_grad=False).eval()
    return fresh


def _distilled(told: Distillation) -> Student:
    ready = prepared.prepare(told, weights=False)
    return Student(told.name, ready.student(ready.teachers), ready.data)


def _federated(told: Experiment) -> Student:
    dataset = data.load(told.data, seed=told.seed)
    if (hidden := told.clients.privileged) is not None:
        dataset = dataset.with_columns(columns.without(dataset.features, hidden.columns))
    draws = rng.stream(told.seed, purpose="student")
    shape, classes = dataset.shape, dataset.classes
    model = models.build(told.student.model, shape=shape, classes=classes, generator=draws)
    return Student(told.name, model, dataset)
