"""What a notebook shows: renderables of rich as HTML, and one that changes while a cell runs.

`rich.live.Live` shows nothing in a notebook without widgets. A display that is updated by its name
works in all of them, and stays in a notebook that is saved.
"""

import io
import threading
from typing import Any, Protocol

from rich.console import Console, RenderableType
from rich.live import Live

_SECONDS = 0.5
_WIDTH = 100
_FORMAT = '<pre style="white-space:pre;overflow-x:auto;line-height:normal">{code}</pre>'


class Redrawn(Protocol):
    """Something that is drawn again and again, from `start` to `stop`."""

    def start(self) -> None:
        """Begin."""
        ...

    def stop(self) -> None:
        """End, and take it away."""
        ...


def live(renderable: RenderableType, console: Console) -> Redrawn:
    """Draws something where it can be drawn again: in a terminal or a notebook; else nothing."""
    if console.is_jupyter:
        return _InCell(renderable)
    return Live(renderable, console=console, transient=True) if redraws(console) else _Nowhere()


def redraws(console: Console) -> bool:
    """Whether what is drawn on a console may be drawn again."""
    on_terminal = console.is_terminal and not console.is_dumb_terminal and not console.quiet
    return console.is_jupyter or on_terminal


def html(renderable: RenderableType) -> str:
    """A renderable as a piece of HTML; what stands in it is escaped."""
    console = Console(record=True, file=io.StringIO(), width=_WIDTH, force_jupyter=False)
    console.print(renderable)
    return console.export_html(inline_styles=True, code_format=_FORMAT)


class _Nowhere:
    def start(self) -> None:
        """See `Redrawn`."""

    def stop(self) -> None:
        """See `Redrawn`."""


class _InCell:
    """In the output of a notebook's cell."""

    def __init__(self, renderable: RenderableType) -> None:
        self._renderable = renderable
        self._over = threading.Event()
        self._handle: Any = None
        self._thread = threading.Thread(target=self._draw, daemon=True)

    def start(self) -> None:
        """See `Redrawn`."""
        from IPython.display import HTML, display

        self._handle = display(HTML(html(self._renderable)), display_id=True)
        self._thread.start()

    def stop(self) -> None:
        """See `Redrawn`."""
        self._over.set()
        if self._handle is not None:
            from IPython.display import HTML

            self._thread.join()
            self._handle.update(HTML(""))

    def _draw(self) -> None:
        from IPython.display import HTML

        before = ""
        while not self._over.wait(_SECONDS):
            if (now := html(self._renderable)) != before:
                self._handle.update(HTML(now))
            before = now
