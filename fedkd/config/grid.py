"""What `--grid key.path=a,b` says: the values that a key takes in a sweep, and every combination.

A combination is a list of overrides, each as in `--set`, so that a value means here what it means
there.
"""

import json
import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from fedkd.config.overrides import Override
from fedkd.errors import ConfigError

Grid = Sequence[str] | Mapping[str, Sequence[Any]]
_CLOSES = {"[": "]", "{": "}"}


def combinations(grid: Grid) -> list[tuple[Override, ...]]:
    """Every combination of a grid's values, the last key's changing fastest.

    Args:
        grid: each `key.path=a,b`; a value may be a TOML list or table, and commas inside it,
            or inside quotes, part nothing. Or values by key, as Python has them.

    Returns:
        For each combination an override a key; one empty one of no grid.

    Raises:
        ConfigError: a key has no values, stands twice, or is `seed`.
    """
    if isinstance(grid, Mapping):
        for key, values in grid.items():
            _check(key, f"{key}={values!r}")
            if isinstance(values, str) or not list(values):
                raise ConfigError(f"grid {key!r} is {values!r}: expected a list of its values")
        return [tuple(zip(grid, chosen, strict=True)) for chosen in product(*grid.values())]
    keys: dict[str, list[str]] = {}
    for text in grid:
        key, values = _parsed(text)
        _check(key, text)
        if key in keys:
            raise ConfigError(
                f"grid {text!r}: {key!r} stands in the grid twice: name all its values at once, "
                f"such as {key}={','.join([*keys[key], *values])}"
            )
        keys[key] = values
    return [
        tuple(f"{key}={value}" for key, value in zip(keys, chosen, strict=True))
        for chosen in product(*keys.values())
    ]


def in_words(override: Override) -> str:
    """An override as `key.path=value`."""
    if isinstance(override, str):
        return override
    key, value = override
    return f"{key}={value if isinstance(value, str) else json.dumps(value, default=str)}"


def _check(key: str, text: str) -> None:
    if key == "seed":
        raise ConfigError(
            f"grid {text!r}: seeds are counted up from the experiment's own: say how many by "
            "--seeds, and the first by --set seed=..."
        )


def _parsed(text: str) -> tuple[str, list[str]]:
    match = re.fullmatch(r"\s*([A-Za-z0-9_.-]+)\s*=(.*)", text, flags=re.DOTALL)
    values = [] if match is None else _split(match[2], text)
    if match is None or not all(values):
        raise ConfigError(
            f"grid {text!r}: expected key.path=a,b with a value on each side of a comma, such as "
            "method.name=fedavg,fedmd"
        )
    return match[1], list(dict.fromkeys(values))


def _split(values: str, text: str) -> list[str]:
    """The values between commas that stand in no list, table or quotes."""
    parts, open_until, start = [], [""], 0
    for place, sign in enumerate(values):
        inside = open_until[-1]
        if inside in {'"', "'"}:
            ended = sign == inside and not (sign == '"' and values[place - 1] == "\\")
            open_until = open_until[:-1] if ended else open_until
        elif sign in {'"', "'"} or sign in _CLOSES:
            open_until = [*open_until, _CLOSES.get(sign, sign)]
        elif sign == inside:
            open_until = open_until[:-1]
        elif sign == "," and not inside:
            parts.append(values[start:place].strip())
            start = place + 1
    if open_until[-1]:
        raise ConfigError(f"grid {text!r}: expected {open_until[-1]!r} where it ends")
    return [*parts, values[start:].strip()]
