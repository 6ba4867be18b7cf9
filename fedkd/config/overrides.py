"""What `--set key.path=value` makes of a file's table."""

import copy
import logging
import re
import tomllib
from collections.abc import Callable, Collection, Sequence
from typing import Any

from fedkd.errors import ConfigError

_log = logging.getLogger(__name__)

Override = str | tuple[str, Any]
"""`"key.path=value"` as the command line has it, or the path and its value."""
Stays = Callable[[Sequence[str], Any], Collection[str] | None]
"""Of a key's path and its new value, which other keys of its table stay; None: all do."""


def apply(table: dict[str, Any], overrides: Sequence[Override], stays: Stays) -> None:
    """Set each value in turn.

    One that makes another choice (of a method, a model, a partition) takes away what the file says
    of the first, which is no setting of the second. What another override says stays.

    Args:
        table: changed in place.
        overrides: a string's value is as TOML has it, or a bare word; a pair's is itself.
        stays: which keys make a choice.

    Raises:
        ConfigError: an override is not understood.
    """
    overridden: dict[str, Any] = {}
    for each in overrides:
        keys, value = _parsed(each) if isinstance(each, str) else (each[0].split("."), each[1])
        text = each if isinstance(each, str) else f"{each[0]}={each[1]!r}"
        place = _place(table, keys, text)
        before = place.get(keys[-1], value) if isinstance(place, dict) else value
        _set(table, keys, value, text)
        kept = None if before == value else stays(keys, value)
        if kept is not None:
            gone = [key for key in place if key != keys[-1] and key not in kept]
            by_command = _place(overridden, keys, text)
            for key in gone:
                del place[key]
                if key in by_command:
                    place[key] = copy.deepcopy(by_command[key])
            if lost := [key for key in gone if key not in place]:
                _log.warning(
                    "%s leaves out what stood beside it: %s", text.strip(), ", ".join(lost)
                )
        _set(overridden, keys, copy.deepcopy(value), text)


def _parsed(text: str) -> tuple[list[str], Any]:
    """The keys and the value of an override."""
    match = re.fullmatch(r"\s*([A-Za-z0-9_.-]+)\s*=(.*)", text, flags=re.DOTALL)
    if match is None:
        raise ConfigError(f"override {text!r}: expected key.path=value, such as seed=1")
    keys, value = match[1].split("."), match[2].strip()
    value = re.sub(r"^([+-]?)\.(?=[0-9])", r"\g<1>0.", value)  # TOML has no .5
    try:
        return keys, tomllib.loads(f"value = {value}")["value"]
    except ValueError:
        return keys, value  # a bare word is a string: --set method.name=dsfl


def _set(table: dict[str, Any], keys: Sequence[str], value: Any, text: str) -> None:
    place = _place(table, keys, text)
    place[_index(place, keys[-1], text)] = value


def _place(table: dict[str, Any], keys: Sequence[str], text: str) -> Any:
    """The section, or the list, that the last of the keys is in."""
    place: Any = table
    for key in keys[:-1]:
        index = _index(place, key, text)
        place = place[index] if isinstance(place, list) else place.setdefault(index, {})
        if not isinstance(place, dict | list):
            raise ConfigError(f"override {text!r}: {key!r} is a value, not a section")
    return place


def _index(place: Any, key: str, text: str) -> Any:
    """The key in a section; in a list, such as that of `[[knowledge]]`, a number from 0."""
    if not isinstance(place, list):
        return key
    if key not in map(str, range(len(place))):
        raise ConfigError(
            f"override {text!r}: {key!r} is none of {len(place)} entries, counted from 0"
        )
    return int(key)
