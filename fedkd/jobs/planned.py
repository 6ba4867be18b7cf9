"""What a sweep runs: a configuration for each combination of a grid's values, and each seed."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedkd.config import Distillation, Experiment
from fedkd.config.grid import Grid, combinations, in_words
from fedkd.config.overrides import Override
from fedkd.errors import ConfigError

Configuration = Experiment | Distillation
_NAME = 100
"""The longest name of a run's folder, in characters, its seed apart."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of several."""

    name: str
    """Of its folder."""
    settings: tuple[str, ...]
    """What it has and others have not, each `key.path=value`; the same for all its seeds."""
    config: Configuration

    @property
    def values(self) -> dict[str, str]:
        """The settings by key."""
        parts = (each.partition("=") for each in self.settings)
        return {key: value for key, _, value in parts}


def plan(
    load: Callable[[Sequence[Override]], Configuration], grid: Grid, seeds: int
) -> list[PlannedRun]:
    """A run for each combination of a grid's values and each seed.

    Args:
        load: gives the configuration with overrides on top.
        grid: see `config.grid.combinations`.
        seeds: how many; they count up from the configuration's own.

    Raises:
        ConfigError: the grid is not understood, or a combination will not do.
    """
    runs = []
    for overrides in combinations(grid):
        settings = tuple(in_words(each) for each in overrides)
        try:
            first = load(overrides)
        except ConfigError as error:
            raise ConfigError(f"sweep at {', '.join(settings)}: {error}") from error
        for seed in range(first.seed, first.seed + seeds):
            name = f"{_name(settings)}seed{seed}"
            runs.append(PlannedRun(name, settings, first.model_copy(update={"seed": seed})))
    return runs


def _name(settings: Sequence[str]) -> str:
    """The beginning of a folder's name, which settings alone decide: `method=fedavg-rounds=5-`."""
    if not settings:
        return ""
    pairs = [(key.split("."), value) for key, _, value in (s.partition("=") for s in settings)]
    short = [_short(parts) for parts, _ in pairs]
    alike = len(set(short)) < len(short)
    names = [
        ".".join(parts) if alike else one for one, (parts, _) in zip(short, pairs, strict=True)
    ]
    asked = [f"{key}={value}" for key, (_, value) in zip(names, pairs, strict=True)]
    return f"{named(*asked, all_of=settings)}-"


def named(*words: str, all_of: Sequence[str] = ()) -> str:
    """A folder's name that reads like words with `-` between, and is of no others.

    Args:
        words: may hold anything; what a path could take for more than a name is left out.
        all_of: what the words stand for, where they say less.
    """
    plain = ["=".join(map(_plain, word.split("="))) for word in words]
    name = "-".join(plain)[:_NAME]
    if len(name) == _NAME or plain != list(words):  # others may read the same
        whole = " ".join(all_of or words)
        name = f"{name}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
    return name


def _plain(word: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+_-]+", "_", word).strip("_")


def _short(parts: Sequence[str]) -> str:
    """What a key is called: `method.name` is method, `knowledge.0.name` knowledge.0."""
    *before, last = parts[:-1] if parts[-1] == "name" and parts[1:] else parts
    return f"{before[-1]}.{last}" if last.isdigit() and before else last
