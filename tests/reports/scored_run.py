"""Run folders whose headline is another score than accuracy, for tests of their readers."""

import json
from pathlib import Path
from typing import Any

from example_run import change, read_lines, write_lines, write_run

RMSE = {"name": "rmse", "higher": False, "share": False, "number": True}
F1 = {"name": "macro-f1", "higher": True, "share": True, "number": True}
CONFUSION = {"name": "confusion", "higher": True, "share": True, "number": False}


def write_scored(path: Path, scores: list[dict[str, Any]], **options: Any) -> Path:
    """A run that is scored by `scores` alone: each number is what the accuracy would have been.

    Of a score of which less is better it is 10 times what is missing to 1. A list is 3 by 3.
    """
    write_run(path, **options)
    summary = json.loads((path / "summary.json").read_text())
    lines = read_lines(path)
    for line in lines:
        for part in _scored(line):
            _rename(part, scores)
        if line["teachers"] is not None:
            _rename(line["teachers"], scores, "mean_")
    for part in _scored(summary):
        _rename(part, scores)
    for prefix in ("mean_", "best_"):
        for part in (summary["student"], summary["teachers"]):
            if part is not None and f"{prefix}accuracy" in part:
                _rename(part, scores, prefix)
    write_lines(path, lines)
    change(path, **summary, scores=scores)
    return path


def _scored(part: dict[str, Any]) -> list[dict[str, Any]]:
    teachers = (part["teachers"] or {}).get("by_client", {})
    return [part["student"], *filter(None, [part["ensemble"]]), *teachers.values()]


def _rename(part: dict[str, Any], scores: list[dict[str, Any]], prefix: str = "") -> None:
    accuracy, by_class = part.pop(f"{prefix}accuracy"), part.pop("by_class", None)
    for score in scores:
        figure = score["name"].replace("-", "_")
        if score["number"]:
            value = accuracy if score["higher"] else 10 * (1 - accuracy)
            part[f"{prefix}{figure}"] = value
            if by_class is not None and score["share"]:
                part[f"{figure}_by_class"] = by_class
        elif not prefix:
            part[figure] = [[7, 0, 1], [2, 5, 0], [0, 0, 4]]
