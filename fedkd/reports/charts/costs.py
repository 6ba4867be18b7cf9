"""What a run cost, drawn: bytes by round and seconds by phase."""

from collections import Counter
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fedkd.reports.charts.drawing import DOWN, INK, TIME, UP, Chart, chart
from fedkd.reports.grid import Grid, columns
from fedkd.reports.wording import duration, percent, shorten, size
from fedkd.runs.schema import Round


def traffic(rounds: Sequence[Round]) -> Chart:
    """Bytes from the clients (up) and to them (down): by round, or in one round side by side."""
    up, down = sum(r.bytes.up for r in rounds), sum(r.bytes.down for r in rounds)
    answers = max(1, sum(r.answered for r in rounds))
    caption = (
        f"The clients sent {size(up)} in all and received {size(down)}: for each client and round "
        f"{size(up / answers)} up and {size(down / answers)} down."
    )

    def draw(axes: Axes, _width: int) -> None:
        if len(rounds) == 1:
            bars(axes, {"up": (up, UP), "down": (down, DOWN)}, size)
        else:
            _mirrored(axes, rounds)

    heights = (110.0, 110.0) if len(rounds) == 1 else (260.0, 240.0)
    return chart("traffic", "Bytes by round", caption, draw, heights=heights)


def _mirrored(axes: Axes, rounds: Sequence[Round]) -> None:
    x = [r.round for r in rounds]
    sides = (([r.bytes.up for r in rounds], UP), ([-r.bytes.down for r in rounds], DOWN))
    for values, colour in sides:
        if len(rounds) <= 80:
            axes.bar(x, values, 0.72, color=colour)
        else:  # gaps between bars would be thinner than a pixel and only grey them out
            axes.stairs(
                values, [x[0] - 0.5, *(number + 0.5 for number in x)], fill=True, color=colour
            )
    axes.axhline(0, color=INK, linewidth=1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: size(abs(value))))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.grid(visible=False, axis="x")
    axes.margins(x=0.01, y=0.18)
    axes.text(0.01, 0.98, "▲ up, from the clients", transform=axes.transAxes, va="top")
    axes.text(0.01, 0.02, "▼ down, to the clients", transform=axes.transAxes, va="bottom")
    axes.set_xlabel("round")


def bars(axes: Axes, values: dict[str, tuple[float, str]], form: Callable[[float], str]) -> None:
    """Horizontal bars from (value, colour) by name, each with its value in words at its end."""
    top = max(1e-9, *(value for value, _ in values.values()))
    for row, (value, colour) in enumerate(values.values()):
        axes.barh(row, value, height=0.62, color=colour)
        axes.annotate(form(value), (value, row), (6, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(values)), [shorten(name, 16) for name in values], color=INK)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xlim(0, top * 1.02)
    axes.set_xticks([])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def time_by_phase(rounds: Sequence[Round]) -> Chart:
    """Seconds by phase, summed over clients and rounds, and the server's beside them."""
    phases: Counter[str] = Counter()
    for each in rounds:
        phases.update(each.seconds.phases)
    server = sum(r.seconds.server for r in rounds)
    total = sum(r.seconds.total for r in rounds)
    values = {name: (seconds, TIME) for name, seconds in phases.most_common()}
    caption = (
        f"The rounds took {duration(total)}, of which the server worked {duration(server)}"
        f" ({percent(server / total if total else 0)})"
    )
    if not any(not name.startswith("server: ") for name in phases):
        caption += "; the clients’ seconds stay with them"
    elif values:
        longest, seconds = phases.most_common(1)[0]
        share = seconds / max(1e-9, sum(phases.values()))
        caption += (
            f"; summed over all clients, which may work side by side, {longest} took the most, "
            f"{percent(share)} of {duration(sum(phases.values()))}"
        )

    def draw(axes: Axes, _width: int) -> None:
        bars(axes, {**values, "server": (server, INK)}, duration)

    height = 24.0 + 28 * (len(values) + 1)
    title = "Time by phase"
    rows = [*phases.most_common(), ("server, in all", server)]
    grid = Grid(title, columns("Phase", "Time"), tuple((n, duration(s)) for n, s in rows))
    return chart("time", title, f"{caption}.", draw, heights=(height, height), grid=grid)
