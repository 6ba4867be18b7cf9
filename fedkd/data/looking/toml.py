"""Guesses as a commented TOML file."""

from collections.abc import Mapping, Sequence
from typing import Any

import tomli_w

from fedkd.data.looking.described import Guess

_WIDTH = 100
_COLUMN = 36
"""Where comments begin that stand beside a value, if it leaves room."""


def written(guesses: Sequence[Guess]) -> str:
    """A TOML file of all values, each with its reason as a comment.

    Args:
        guesses: keys with dots, each once; of one table one after the other, or apart.
    """
    sections: dict[str, list[str]] = {"": []}  # first, or TOML takes them for a table's
    for guess in guesses:
        above, _, key = guess.key.rpartition(".")
        if isinstance(guess.value, Mapping) and len(line(key, guess.value)) > _WIDTH:
            own = [line(_key(each), value) for each, value in guess.value.items()]
            sections[guess.key] = [*([_reason(guess)] if guess.why else []), *own]
        else:
            sections.setdefault(above, []).extend(_lines(key, guess))
    texts = [[f"[{name}]", *own] if name else own for name, own in sections.items() if own]
    return "\n\n".join("\n".join(each) for each in texts) + "\n"


def comment(text: str) -> str:
    """A comment of one line, whatever the names of a file's columns hold."""
    plain = "".join(char if char.isprintable() else " " for char in text)
    return f"# {' '.join(plain.split())}"


def line(key: str, value: Any) -> str:
    """A key and its value, on one line.

    Args:
        key: bare, or with dots between bare ones.
        value: as TOML has it; a mapping is written as an inline table.
    """
    return f"{key} = {_value(value)}"


def _lines(key: str, guess: Guess) -> list[str]:
    plain = line(key, guess.value)
    if not guess.why:
        return [plain]
    reason = _reason(guess)
    beside = f"{plain:<{_COLUMN}}  {reason}"
    return [beside] if len(beside) <= _WIDTH else [reason, plain]


def _reason(guess: Guess) -> str:
    return comment(f"FROM YOUR RECORDS: {guess.why}" if guess.private else guess.why)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        inside = (f"{_key(key)} = {_value(each)}" for key, each in value.items())
        return f"{{ {', '.join(inside)} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").rstrip("\n")


def _key(key: str) -> str:
    return tomli_w.dumps({key: 0}).removesuffix(" = 0\n")
