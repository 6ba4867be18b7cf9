import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

from fedkd.knowledge import (
    boxes,
    dist,
    feature,
    graph,
    label,
    logits,
    parameter,
    ranking,
    relation,
    similarity,
    structure,
    tokens,
    transport,
    writing,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "knowledge.md"
ROOMS = [boxes, dist, feature, graph, label, parameter, ranking, relation, similarity, structure]
ROOMS += [tokens, writing, logits, transport]


@pytest.mark.parametrize("room", ROOMS)
def test_every_loss_is_documented_and_every_documented_loss_exists(room: ModuleType) -> None:
    short = room.__name__.rpartition(".")[2]
    documented = re.findall(rf"`{short}\.(\w+)`", DOCUMENT.read_text(encoding="utf-8"))
    public = {
        name
        for name, function in inspect.getmembers(room, inspect.isfunction)
        if function.__module__ == room.__name__ and not name.startswith("_")
    }
    assert set(documented) == public


@pytest.mark.parametrize("room", ROOMS)
def test_the_table_and_the_docstring_say_the_same_of_samples(room: ModuleType) -> None:
    short = room.__name__.rpartition(".")[2]
    rows = re.findall(
        rf"^\| `{short}\.(\w+)` \|[^|]*\| (yes|no) \|", DOCUMENT.read_text("utf-8"), re.MULTILINE
    )
    assert rows
    for name, couples in rows:
        said = inspect.getdoc(getattr(room, name)) or ""
        assert ("Couples" in said) == (couples == "yes"), name
        assert ("er sample" in said or "er place" in said) == (couples == "no"), name
