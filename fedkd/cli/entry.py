"""An entry of a list of what is known by name: a heading, and facts below it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Entry:
    """One entry; a rich renderable.

    On a terminal facts are wrapped beside what they are called; elsewhere each is one line.

    Attributes:
        name: what it is called.
        about: stands beside the name.
        facts: by what each is called; an empty one is left out.
    """

    name: str
    about: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """See `rich.protocol`."""
        yield Text.assemble((self.name, "bold"), *([f"  {self.about}"] if self.about else []))
        facts = {key: value for key, value in self.facts.items() if value}
        wide = max((len(key) for key in facts), default=0)
        if not console.is_terminal:
            for key, value in facts.items():
                yield Text(f"  {key:<{wide}}  {value}", no_wrap=True, overflow="ignore")
            return
        grid = Table.grid(padding=(0, 2))
        for key, value in facts.items():
            grid.add_row(Text(f"  {key:<{wide}}", style="dim"), Text(value, overflow="fold"))
        yield grid
        yield ""


def settings(values: Mapping[str, Any], prefix: str = "") -> str:
    """Parameters with their defaults, as `weight 0.9, student.epochs 10`."""
    return ", ".join(
        settings(value, f"{prefix}{key}.")
        if isinstance(value, Mapping)
        else f"{prefix}{key} {_shown(value)}"
        for key, value in values.items()
    )


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
