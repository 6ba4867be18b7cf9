"""What a call says of an experiment, as the configuration has it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedkd.config import ConfigLike, Distillation, Experiment, load, load_distillation, load_either
from fedkd.config.overrides import Override
from fedkd.data import given
from fedkd.errors import UsageError
from fedkd.names import look_beside

Config = ConfigLike | Experiment | Distillation
"""A TOML file, the name of an experiment that comes with fedkd, a table, or one that was read."""
Overrides = Mapping[str, Any] | Sequence[str]
"""By a key's path, such as `{"method.name": "dsfl"}`; or as the command line has it, a list of
`"method.name=dsfl"`."""


def experiment(config: Config, overrides: Sequence[Override]) -> Experiment:
    """The federation that a call means.

    Raises:
        ConfigError: the file is missing or no TOML, or a key or value is wrong.
    """
    _look_beside(config)
    return load(_table(config), overrides)


def distillation(config: Config, overrides: Sequence[Override]) -> Distillation:
    """The distillation that a call means; see `experiment`."""
    _look_beside(config)
    return load_distillation(_table(config), overrides)


def either(config: Config, overrides: Sequence[Override]) -> Experiment | Distillation:
    """The federation or the distillation that a call means; see `experiment`."""
    _look_beside(config)
    return load_either(_table(config), overrides)


@contextmanager
def overriding(
    overrides: Overrides, settings: Mapping[str, Any], data: object = None
) -> Iterator[list[Override]]:
    """All that a call changes of a configuration.

    Args:
        overrides: in their order.
        settings: keywords, such as `method__name="dsfl"`.
        data: a name or a path for `data.name`; or Python objects, which it names while the context
            lasts. None: none.
    """
    said: list[Override] = list(overrides.items() if isinstance(overrides, Mapping) else overrides)
    said += [(key.replace("__", "."), value) for key, value in settings.items()]
    if data is None:
        yield said
    elif isinstance(data, str | Path):
        yield [*said, ("data.name", str(data))]
    else:
        with given.held(data) as name:
            yield [*said, ("data.name", name)]


def check_engine(experiment: Experiment) -> None:
    """Refuse Python objects where clients are in processes that do not have them.

    Raises:
        UsageError: with the engine to take.
    """
    if given.is_given(experiment.data.name) and experiment.engine.kind == "ray":
        raise UsageError(
            f"data.name is {experiment.data.name!r}, a Python object that Ray's workers do not "
            "have: take engine.kind = 'processes', or name a file"
        )


def run_folder(
    config: Experiment | Distillation, out: str | Path | None, *, also: str = ""
) -> Path:
    """The folder that is named, or the configuration's own, whose name ends in `also`."""
    return Path(out or Path(config.output.folder) / f"{config.name}{also}").expanduser()


def _table(config: Config) -> ConfigLike:
    if isinstance(config, Experiment | Distillation):
        return config.model_dump(mode="json", exclude_none=True)
    return config


def _look_beside(config: Config) -> None:
    """Let import paths, `"module:Name"`, lead to modules beside a file, or where Python is."""
    file = isinstance(config, str | Path)
    look_beside(Path(str(config)).parent if file else Path())
