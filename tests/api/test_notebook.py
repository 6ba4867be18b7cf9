"""What a notebook shows while a cell runs, and what of it stays."""

import sys
import threading
from types import ModuleType

import pytest
from rich.console import Console
from rich.text import Text

from fedkd.reports import notebook


class Notebook(ModuleType):
    """`IPython.display` of a notebook: one output that is updated by its name."""

    def __init__(self):
        super().__init__("IPython.display")
        self.shown = []
        self.drawn = threading.Event()

    def HTML(self, content):
        return content

    def display(self, content, *, display_id):
        assert display_id
        self.update(content)
        return self

    def update(self, content):
        self.shown.append(content)
        self.drawn.set()


@pytest.fixture
def cell(monkeypatch):
    """A notebook's cell, drawn again and again."""
    display = Notebook()
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(notebook, "_SECONDS", 0.01)
    return display


def test_a_display_is_drawn_again_in_a_cell_and_taken_away_at_its_end(cell):
    text = Text("<b>round</b> 1")
    shown = notebook.live(text, Console(force_jupyter=True))
    shown.start()
    assert cell.drawn.wait(600)
    cell.drawn.clear()
    text.append(", client 2")
    assert cell.drawn.wait(600)
    shown.stop()
    assert "&lt;b&gt;round&lt;/b&gt; 1" in cell.shown[0]
    assert "client 2" in "".join(cell.shown)
    assert cell.shown[-1] == ""
    assert not any("_draw" in each.name for each in threading.enumerate())


def test_where_nothing_can_be_drawn_again_nothing_is(capsys):
    shown = notebook.live(Text("round 1"), Console(force_terminal=False, force_jupyter=False))
    shown.start()
    shown.stop()
    assert capsys.readouterr() == ("", "")
