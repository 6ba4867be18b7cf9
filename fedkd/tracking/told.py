"""Which figures of a run are told: those of models, bytes, seconds and budgets, none by client."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fedkd.config import Distillation, Experiment

_OF_ROUND = (
    "student", "teachers", "ensemble", "personal", "losses", "bytes", "seconds", "privacy",
)  # fmt: skip
_OF_SUMMARY = (*_OF_ROUND, "plain", "gain", "failures")
_BY_PARTY = "by_client"


def parameters(config: Experiment | Distillation) -> dict[str, Any]:
    """The configuration, flat: values by dotted key, lists as JSON; where it is kept apart."""
    table = config.model_dump(mode="json", exclude_none=True, exclude={"output"})
    return dict(_flat(table, ""))


def of_line(record: Mapping[str, Any]) -> tuple[str, int, dict[str, float]]:
    """A line of `rounds.jsonl` as a stage, a step in it, and figures.

    A federation has one stage, of no name, and its steps are rounds; those of a distillation are
    epochs.
    """
    if "round" in record:
        found = _numbers({key: record.get(key) for key in _OF_ROUND})
        found["participants"] = len(record.get("participants", ()))
        found["failures"] = len(record.get("failures", ()))
        return "", record["round"], found
    own = {key: value for key, value in record.items() if key not in {"stage", "epoch"}}
    return record["stage"], record["epoch"], _numbers(own)


def of_summary(summary: Mapping[str, Any]) -> dict[str, float]:
    """The figures of `summary.json`, called `final...`."""
    found = _numbers({key: summary.get(key) for key in _OF_SUMMARY})
    return {f"final.{name}": value for name, value in found.items()}


def _numbers(table: Mapping[str, Any]) -> dict[str, float]:
    flat = _flat({key: value for key, value in table.items() if value is not None}, "")
    return {
        key: float(value)
        for key, value in flat
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _flat(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if key == _BY_PARTY:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            listed = isinstance(value, list | tuple)
            yield f"{prefix}{key}", json.dumps(value) if listed else value
