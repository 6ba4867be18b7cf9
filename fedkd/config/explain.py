"""What is wrong with a configuration, in words: the key, its value, what was expected."""

import json
import re
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from fedkd.names import choices


def explain(model: type[BaseModel], error: ValidationError, *, prefix: str = "") -> str:
    """Pydantic's complaints as one line.

    Args:
        model: what was validated.
        error: what pydantic says of it.
        prefix: where the model stands in the file, such as `"method."`.
    """
    details = [dict(detail) for detail in error.errors()]
    # What is wrong inside a value explains what is wrong with the value.
    inner = [d for d in details if not any(_within(other, d) for other in details)]
    return "; ".join(dict.fromkeys(_line(model, detail, prefix) for detail in inner))


def _within(inner: dict[str, Any], outer: dict[str, Any]) -> bool:
    depth = len(outer["loc"])
    return len(inner["loc"]) > depth and inner["loc"][:depth] == outer["loc"]


def _line(model: type[BaseModel], detail: dict[str, Any], prefix: str) -> str:
    parts, valid = _locate(model, detail["loc"])
    steps = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    key = prefix + "".join(steps).lstrip(".")
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        last = str(parts[-1])
        # What is chosen by its name and has parameters beside it is validated without that name.
        known = [*valid, "name"] if prefix and len(parts) == 1 else valid
        near = choices(last, known, listed=valid, prefix=key.removesuffix(last))
        return f"unknown key {key!r}: {near}"
    if kind == "missing":
        return f"key {key!r} is missing"
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    if kind.startswith("union_tag"):
        return _explain_tag(key, value, detail["ctx"])
    if kind in ("tuple_type", "list_type") and isinstance(value, str):
        return f"key {key!r} is {_show(value)}: expected a list, [{_show(value)}]"
    message = re.sub(r"^\w+ should ", "to ", detail["msg"]).removeprefix("to be ")
    return f"key {key!r} is {_show(value)}: expected {message}"


def _explain_tag(key: str, table: dict[str, Any], about: dict[str, Any]) -> str:
    """The complaint about the key that says which of several kinds a table is."""
    key, value = f"{key}.{_SCHEME}", table.get(_SCHEME)
    if value is None:
        return f"key {key!r} is missing"
    valid = re.findall(r"'([^']*)'", about["expected_tags"])
    return f"key {key!r} is {_show(value)}: {choices(str(value), valid)}"


_SCHEME = "scheme"
"""The key that tells the partitions apart; its value is their tag."""


def _locate(
    model: type[BaseModel], location: tuple[int | str, ...]
) -> tuple[list[int | str], list[str]]:
    """The keys of a location as the file has them, and those that are valid where it ends.

    Pydantic adds a partition's tag after the partition's own key; it is no key of the file.
    """
    keys: list[int | str] = []
    valid: list[str] = []
    inside = [model]
    for part in location:
        if len(inside) > 1:
            inside = [each for each in inside if part in _tags(each)]
            continue
        keys.append(part)
        if isinstance(part, str):
            fields = inside[0].model_fields if inside else {}
            valid = sorted(fields)
            inside = _models_in(fields[part].annotation) if part in fields else []
    return keys, valid


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    field = model.model_fields.get(_SCHEME)
    return () if field is None else get_args(field.annotation)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def _show(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
