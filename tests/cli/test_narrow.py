"""Tables on a terminal of any width: nothing is cut, and no figure is broken."""

import re
from io import StringIO

import pytest
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table

from fedkd.cli.narrow import fitting
from fedkd.reports import tables
from fedkd.reports.comparison import ComparisonRow, Spread

SPREAD = Spread(0.7812, 0.0123)
ROWS = [
    ComparisonRow(name, (0, 1, 2), SPREAD, SPREAD, SPREAD, SPREAD, SPREAD, SPREAD, SPREAD)
    for name in ("fedpair_moments, epsilon 8", "fedmd")
]


def shown(renderable, width):
    console = Console(file=StringIO(), width=width)
    console.print(fitting(renderable))
    return console.file.getvalue()


def found():
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title="what [bold]was[/bold] found")
    table.add_column("verdict", no_wrap=True)
    table.add_column("what")
    for name in ("claimed", "measured"):
        table.add_column(name, no_wrap=True)
    for number in range(2):
        what = "a client's noisy gradients, and counts and sums of its records, many times"
        table.add_row("[green]CONSISTENT[/]", what, f"{number}.123", "")
    return table


@pytest.mark.parametrize("width", [40, 60, 76, 80, 200])
@pytest.mark.parametrize("table", [tables.comparison(ROWS), found()])
def test_nothing_is_cut_at_any_width(table, width):
    text = shown(Group(table, "below"), width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    cells = re.findall(r"78\.1 ± 1\.2|\d\.123|CONSISTENT|fedmd", text)
    wide = re.findall(r"78\.1 ± 1\.2|\d\.123|CONSISTENT|fedmd", shown(table, 300))
    assert cells == wide
    assert text.endswith("below\n")


def test_a_table_that_fits_is_one_and_else_each_row_is_a_block():
    wide, narrow = (shown(found(), width) for width in (80, 50))
    assert re.search(r"verdict +what +claimed +measured", wide)
    assert narrow.splitlines()[:2] == ["what was found", "CONSISTENT"]
    assert re.search(r"^  claimed +0\.123 *$", narrow, re.MULTILINE)
    assert "measured" not in narrow  # it is empty
