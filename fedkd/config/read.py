"""From a TOML file, or a table, to a validated configuration."""

import copy
import json
import tomllib
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import (
    BaseModel,
    ValidationError,
)

from fedkd import configs as packaged
from fedkd.config import overrides as overriding
from fedkd.config.distillation import Distillation
from fedkd.config.experiment import Experiment
from fedkd.config.explain import explain
from fedkd.config.overrides import Override
from fedkd.config.partition import Partition
from fedkd.config.training import Optimisation
from fedkd.errors import ConfigError

M = TypeVar("M", bound=BaseModel)


ConfigLike = Path | str | Mapping[str, Any]
"""A TOML file, the name of an experiment that comes with fedkd, such as "demo", or a table."""


def load(given: ConfigLike, overrides: Sequence[Override] = ()) -> Experiment:
    """Read an experiment, with overrides on top.

    Raises:
        ConfigError: the file is missing or no TOML, or a key or value in it is wrong.
    """
    table = read(given, overrides)
    if {"way", "teachers", "knowledge"} & table.keys():
        raise ConfigError(
            f"{_called(given)} is one party's distillation, no federation: run it with fedkd distil"
        )
    return parse(table)


def load_distillation(given: ConfigLike, overrides: Sequence[Override] = ()) -> Distillation:
    """As `load`, of one party's distillation.

    Raises:
        ConfigError: as `load`.
    """
    table = read(given, overrides)
    if {"clients", "method", "rounds"} & table.keys():
        raise ConfigError(
            f"{_called(given)} is a federation, no distillation for one party: run it with fedkd "
            "simulate"
        )
    return validate(Distillation, table)


def load_either(given: ConfigLike, overrides: Sequence[Override] = ()) -> Experiment | Distillation:
    """As `load`, of a federation or of one party's distillation, whichever it is.

    Raises:
        ConfigError: as `load`.
    """
    table = read(given, overrides)
    federation = {"clients", "method", "rounds"} & table.keys()
    return parse(table) if federation else validate(Distillation, table)


def read(given: ConfigLike, overrides: Sequence[Override] = ()) -> dict[str, Any]:
    """The table that is meant, with overrides on top.

    Raises:
        ConfigError: the file is missing or no TOML, or an override is not understood.
    """
    table = copy.deepcopy(dict(given)) if isinstance(given, Mapping) else _content(given)
    overriding.apply(table, overrides, _stays)
    return table


def _called(given: ConfigLike) -> str:
    return "the experiment" if isinstance(given, Mapping) else f"experiment {str(given)!r}"


def _content(path: Path | str) -> dict[str, Any]:
    path = packaged.find(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        inside = path / "config.toml"
        near = [
            *(str(path.with_name(n)) for n in get_close_matches(path.name, _beside(path), n=1)),
            *get_close_matches(path.stem, packaged.names(), n=1),
        ][:1]
        meant = repr(str(inside)) if inside.exists() else "".join(map(repr, near))
        hint = f"; did you mean {meant}?" if meant else ""
        raise ConfigError(
            f"experiment {str(path)!r}: {error.strerror}; expected the path of a TOML file, or a "
            f"name that 'fedkd configs' shows{hint}"
        ) from error
    except ValueError as error:
        raise ConfigError(f"experiment {str(path)!r} is not valid TOML: {error}") from error


def _beside(path: Path) -> list[str]:
    """The TOML files in a file's folder, by name."""
    return sorted(each.name for each in path.parent.glob("*.toml") if path.name)


def parse(table: Mapping[str, Any]) -> Experiment:
    """Validate a table as an experiment.

    Raises:
        ConfigError: names the key, its value, what was expected and the nearest valid key.
    """
    return validate(Experiment, table)


def parse_json(text: str) -> Experiment:
    """Read an experiment that `Experiment.to_json` wrote."""
    return validate(Experiment, json.loads(text))


def validate(model: type[M], table: Any, *, prefix: str = "") -> M:
    """Validate `table` as `model`, turning pydantic's complaints into one clear line.

    Args:
        model: the frozen pydantic model.
        table: the values.
        prefix: where the table stands in the experiment, such as `"method."`.

    Raises:
        ConfigError: with every wrong key named.
    """
    try:
        # Strict, but by way of JSON: a TOML array may be a tuple, a string may not be a number.
        text = json.dumps(_over_defaults(model, table), default=str)
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise ConfigError(explain(model, error, prefix=prefix)) from error


def _over_defaults(model: type[BaseModel], table: Any) -> Any:
    """Let a table that says part of an `Optimisation` keep the rest of the field's own default.

    Or else `[method.student] epochs = 3` would quietly change the method's learning rate as well.
    """
    if not isinstance(table, Mapping):
        return table
    defaults = {key: field.default for key, field in model.model_fields.items()}
    return {
        key: {**defaults[key].model_dump(), **value}
        if isinstance(defaults.get(key), Optimisation) and isinstance(value, Mapping)
        else value
        for key, value in table.items()
    }


def _stays(keys: Sequence[str], value: Any) -> Collection[str] | None:
    """Which keys of a table stay when `keys` chooses anew; None where it is no choice.

    A partition's keys are known here. Those of a method, a model, a way or a form are not: another
    one starts from its own defaults. `data.name` is no such choice, nor the experiment's name.
    """
    *table, key = keys
    if table == ["data", "partition"] and key == "scheme":
        kinds = get_args(get_args(Partition)[0])
        return {
            field
            for kind in kinds
            if value in get_args(kind.model_fields[key].annotation)
            for field in kind.model_fields
        }
    return () if key == "name" and table and table != ["data"] else None
