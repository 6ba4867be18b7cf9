"""What attacks cost, drawn: each by share, bare and defended, beside the honest run."""

from matplotlib.axes import Axes

from fedkd.auditing.poisoning.outcomes import HONEST, Poisoning, rows
from fedkd.reports.charts.axes import score_axis
from fedkd.reports.charts.drawing import FAINT, INK, STUDENT, TEACHERS, WIDE, Chart, chart
from fedkd.reports.figures import better, figure, title
from fedkd.reports.poisoning import share, worst


def poisoning_chart(found: Poisoning) -> Chart | None:
    """A row for each attack and share: a diamond bare, a dot defended; None without an attack."""
    attacked = [each for each in rows(found) if each.attack != HONEST]
    if not attacked:
        return None
    honest = [each for each in rows(found) if each.attack == HONEST]

    def draw(axes: Axes, width: int) -> None:
        for row in honest:
            for value, colour in ((row.bare, TEACHERS), (row.defended, STUDENT)):
                if value is not None:
                    axes.axvline(value, color=colour, linewidth=1.2, linestyle="--")
        for place, row in enumerate(attacked):
            both = [value for value in (row.bare, row.defended) if value is not None]
            axes.hlines(place, min(both, default=0), max(both, default=0), color=FAINT, linewidth=3)
            if row.bare is not None:
                axes.plot(row.bare, place, "D", color=TEACHERS, markersize=7, clip_on=False)
            if row.defended is not None:
                axes.plot(row.defended, place, "o", color=STUDENT, markersize=8, clip_on=False)
        names = [f"{row.attack}, {share(row)}" for row in attacked]
        axes.set_yticks(range(len(names)), names, color=INK)
        axes.set_ylim(len(names) - 0.4, -0.6)
        score_axis(axes, found.score)
        if width < WIDE:
            axes.tick_params(labelsize=10)

    height = 60.0 + 26 * len(attacked)
    return chart(
        "poisoning",
        f"{title(found.score)} under attack{better(found.score)}",
        _caption(found),
        draw,
        heights=(height, height),
    )


def _caption(found: Poisoning) -> str:
    parts = []
    for word, defended in (("Without defence", False), ("With it", True)):
        if (row := worst(found, defended=defended)) is not None:
            value = row.defended if defended else row.bare
            parts.append(
                f"{word} the worst is {row.attack} by {share(row)} of the clients: "
                f"{figure(found.score, value)}."
            )
    return " ".join(
        [*parts, "Diamonds: without defence; dots: with it; dashed: nobody is hostile."]
    )
