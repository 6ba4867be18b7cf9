"""Read a run folder: what the report and the comparison start from."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file

from fedkd.config import load
from fedkd.errors import ConfigError, RunFolderError
from fedkd.runs.members import MEMBERS, Members
from fedkd.runs.schema import Environment, FinishedRun, Generated, Partition, Round, Summary

R = TypeVar("R", bound=BaseModel)


def read(path: Path) -> FinishedRun:
    """Read a finished run's folder, its tensors apart.

    Raises:
        RunFolderError: it is no run folder, the run is unfinished, or a file is missing or corrupt.
    """
    check_finished(path)
    try:
        experiment = load(path / "config.toml")
    except ConfigError as error:
        raise RunFolderError(f"run folder {str(path)!r}: {error}; run it again") from error
    lines = text(path / "rounds.jsonl").splitlines()
    rounds = tuple(parse(Round, line, path / "rounds.jsonl", i) for i, line in enumerate(lines, 1))
    if not rounds:
        raise RunFolderError(f"{str(path / 'rounds.jsonl')!r} holds no round; run it again")
    partition = _optional(Partition, path / "partition.json")
    told = _file(Summary, path / "summary.json")
    _check_figures(path, rounds, told, partition)
    return FinishedRun(
        path=path,
        experiment=experiment,
        environment=_file(Environment, path / "environment.json"),
        summary=told,
        rounds=rounds,
        partition=partition,
        members=_optional(Members, path / MEMBERS),
    )


def check_finished(path: Path) -> None:
    """Refuse what is no folder of a finished run.

    Raises:
        RunFolderError: says which of it is missing.
    """
    if not (path / "config.toml").is_file():
        held = sorted(each.parent.name for each in path.glob("*/config.toml"))
        remedy = (
            f"give folders of runs inside it, for example {str(path / held[0])!r}"
            if held
            else "give a folder that fedkd wrote"
        )
        raise RunFolderError(f"run folder {str(path)!r} has no config.toml: {remedy}")
    if not (path / "summary.json").is_file():
        raise RunFolderError(
            f"run folder {str(path)!r} has no summary.json: the run is unfinished; "
            "finish it with --resume"
        )


def summary(path: Path) -> dict[str, Any]:
    """A finished run's `summary.json` as it stands.

    Raises:
        RunFolderError: it is no run folder, the run is unfinished, or the file is corrupt.
    """
    check_finished(path)
    file = path / "summary.json"
    try:
        found = json.loads(text(file))
    except ValueError as error:
        raise _corrupt(file, f"JSON: {error}") from error
    if not isinstance(found, dict):
        raise _corrupt(file, "a table")
    return found


def read_generated(path: Path) -> Generated | None:
    """Read the sample of a run's generator; None where the method has no generator.

    Raises:
        RunFolderError: `generated.safetensors` is corrupt or holds other tensors.
    """
    file = path / "generated.safetensors"
    if not file.is_file():
        return None
    try:
        tensors = load_file(file)
        generated = Generated(x=tensors["x"], y=tensors["y"])
    except (SafetensorError, KeyError, ValidationError, OSError) as error:
        raise _corrupt(file, "safetensors with x and y") from error
    if generated.x.ndim != 4 or generated.y.shape != generated.x.shape[:1]:
        raise _corrupt(file, f"x (n, C, H, W) and y (n,), not {generated.x.shape}")
    return generated


def _check_figures(
    path: Path, rounds: Sequence[Round], summary: Summary, partition: Partition | None
) -> None:
    """Every model has the headline score, and lists by class have as many entries as classes."""
    headline, lists = summary.headline, [score.by_class for score in summary.scores]
    classes = rounds[-1].student.classes if partition is None else len(partition.classes)
    for row in partition.counts if partition is not None else ():
        if len(row) != classes:
            raise _corrupt(path / "partition.json", f"{classes} counts a client, not {len(row)}")
    if headline.figure not in summary.student.figures:
        raise _corrupt(path / "summary.json", f"student.{headline.figure}: Field required")
    for each in rounds:
        teachers = each.teachers.by_client.values() if each.teachers is not None else ()
        student = [each.student] if each.scored or each is rounds[-1] else []
        for scores in (*student, *teachers):
            if headline.figure not in scores.figures:
                needed = f"round {each.round}: {headline.figure} of every model"
                raise _corrupt(path / "rounds.jsonl", needed)
            for name in lists:
                found = scores.by_class(name)
                if found is not None and len(found) != classes:
                    needed = f"round {each.round}: {classes} figures by class, not {len(found)}"
                    raise _corrupt(path / "rounds.jsonl", needed)


def _file(model: type[R], file: Path) -> R:
    return parse(model, text(file), file)


def _optional(model: type[R], file: Path) -> R | None:
    return _file(model, file) if file.is_file() else None


def text(file: Path) -> str:
    """A file of a run folder.

    Raises:
        RunFolderError: it is missing or no text.
    """
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise RunFolderError(
            f"{str(file)!r}: {error.strerror}; run the experiment again"
        ) from error
    except UnicodeDecodeError as error:
        raise _corrupt(file, "UTF-8 text") from error


def parse(model: type[R], content: str, file: Path, line: int | None = None) -> R:
    """A part of what a run wrote, as its type; `line` is its number in the file.

    Raises:
        RunFolderError: it is corrupt.
    """
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the text"
        where = key if line is None else f"line {line}, {key}"
        raise _corrupt(file, f"{where}: {first['msg']}") from error


def _corrupt(file: Path, expected: str) -> RunFolderError:
    return RunFolderError(f"{str(file)!r} is corrupt ({expected}); run the experiment again")
