"""What privacy a run spent, drawn: epsilon by round against the budget."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fedkd.reports.charts.axes import label_ends
from fedkd.reports.charts.drawing import INK, TEACHERS, WIDE, Chart, chart
from fedkd.reports.grid import Grid, columns
from fedkd.runs.schema import PrivacySummary, Round


def spending(rounds: Sequence[Round], privacy: PrivacySummary) -> Chart | None:
    """Epsilon so far, round by round, and the budget; None where nothing was spent."""
    spent = [(each.round, each.privacy.epsilon) for each in rounds if each.privacy is not None]
    if privacy.budget is None or not spent:
        return None
    budget, heights = privacy.budget, (280.0, 260.0)
    x, y = [number for number, _ in spent], [epsilon for _, epsilon in spent]

    def draw(axes: Axes, width: int) -> None:
        axes.plot([0, *x], [0, *y], "o-" if len(x) <= 20 else "-", color=INK, linewidth=2.2)
        axes.axhline(budget, color=TEACHERS, linewidth=1.5, linestyle="--")
        axes.set_ylim(0, max(budget, *y) * 1.15)
        axes.set_xlim(0, x[-1])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        ends = [("Spent", y[-1], INK), ("Budget", budget, TEACHERS)]
        label_ends(axes, ends, height=heights[width < WIDE], form="{:.4g}".format)
        axes.set_xlabel("round")
        axes.set_ylabel("epsilon")

    caption = (
        f"After round {x[-1]} epsilon stands at {y[-1]:.4g} of {budget:g}, at delta "
        f"{privacy.delta:g} ({privacy.adjacency}); the largest over all who spend."
    )
    title = "Epsilon by round"
    rows = tuple((str(number), f"{epsilon:.4g}") for number, epsilon in spent)
    grid = Grid(title, columns("Round", "Epsilon so far"), rows, tall=True)
    return chart("spending", title, caption, draw, heights=heights, grid=grid)
