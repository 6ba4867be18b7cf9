"""The report of a comparison: what it holds."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fedkd.reports import comparison, figures, links, wording
from fedkd.reports.charts import methods
from fedkd.reports.comparison import ComparisonRow, Spread
from fedkd.reports.grid import Cell, Grid, GridColumn, Link, Noted
from fedkd.reports.parts import Notice, Report, section, sections
from fedkd.runs.reading import read
from fedkd.runs.schema import FinishedRun
from fedkd.runs.scores import ShownScore


def of(folders: Sequence[Path], beside: Path) -> Report:
    """The report on several runs, methods by seeds.

    Args:
        folders: run folders.
        beside: the folder that the report is for; links start there.

    Raises:
        RunFolderError: no run was given, or a folder is no finished run.
    """
    runs = [read(path) for path in folders]
    rows = comparison.compare(runs)
    score = comparison.headline(runs)
    drawn = [methods.score_by_method(rows, runs, score)]
    if len(rows) > 1:
        drawn.append(methods.score_by_bytes(rows, score))
    if any(len(run.scored) > 1 for run in runs):
        drawn.append(methods.score_by_method_and_round(rows, runs, score))
    protected, stamp, privacy = _privacy(runs)
    unlike = ", ".join(comparison.differences(runs))
    differing = f"Beside method and seed, these runs differ in {unlike}."
    return Report(
        kind="comparison",
        name="Methods compared",
        lead=_headline(rows, runs, score),
        stamp=stamp,
        privacy=privacy,
        protected=protected,
        notices=(Notice("differences", "Not like for like.", differing),) if unlike else (),
        sections=sections(
            [
                section("figures", "Figures by method", [_figures(rows, score)]),
                section("score", figures.title(score), drawn),
                section("runs", "The runs", [_runs(runs, score, beside)]),
            ]
        ),
    )


def _headline(rows: Sequence[ComparisonRow], runs: Sequence[FinishedRun], score: ShownScore) -> str:
    datasets = sorted({wording.dataset(run.summary.dataset) for run in runs})
    best = rows[0]
    spread = "" if best.student.std is None else f" ± {figures.deviation(score, best.student.std)}"
    sentence = (
        f"{wording.plural(len(rows), 'method')} on {wording.listing(datasets)}, "
        f"{wording.plural(len(runs), 'run')}: the best student comes from {best.method}, with "
        f"{figures.named(score, best.student.mean)}{spread} on the test set."
    )
    return sentence[0].upper() + sentence[1:]


def _privacy(runs: Sequence[FinishedRun]) -> tuple[bool, str, str]:
    """Whether all runs are protected, the same as a stamp, and in words."""
    bare = sum(run.summary.privacy.epsilon is None for run in runs)
    if not bare:
        most = max((run.summary.privacy for run in runs), key=lambda privacy: privacy.epsilon or 0)
        text = (
            f"The most that any of these runs spent: {wording.cost(most)}. Runs whose ledgers are "
            "their own and whose data is the same cost that data more than this together."
        )
        return wording.protects(most), wording.stamp(most), text
    which = "any" if bare == len(runs) else wording.number(bare)
    text = (
        f"No differential privacy in {which} of these runs: what left the clients is not protected "
        "by noise."
    )
    return False, "NO DP", text


def _figures(rows: Sequence[ComparisonRow], score: ShownScore) -> Grid:
    beside = comparison.further(rows)
    cells: list[tuple[Cell, ...]] = [
        (
            row.method,
            f"{len(row.seeds)}",
            *(noted(score, each)
              for each in (row.student, row.student_best, row.teachers, row.ensemble)),
            Noted(wording.size(row.bytes_up.mean), _size(row.bytes_up)),
            Noted(wording.size(row.bytes_down.mean), _size(row.bytes_down)),
            Noted(
                wording.duration(row.seconds.mean),
                f"± {wording.duration(row.seconds.std)}" if row.seconds.std else "",
            ),
            *figures_beside,
        )
        for row, *figures_beside in zip(rows, *beside.values(), strict=True)
    ]  # fmt: skip
    named = (f"{name[0].upper()}{name[1:]}" for name in beside)
    others = ("Student at its best", "Teachers’ mean", "Ensemble", "Up", "Down", "Time", *named)
    points = ", in points" if score.share else ""
    note = (
        f"Mean ± sample standard deviation over seeds; {figures.name(score)}"
        f"{figures.better(score)} on the test set{points}. “Student” is after the last round. “At "
        "its best” is chosen by the test set, as many papers do, and flatters every method."
    )
    if "LiRA, student" in beside:
        note += (
            " LiRA: the area under the curve of one attack that tells records that were learned "
            "from others, by all that clients sent or by the student. 0.5 is a guess, and no proof "
            "of privacy: a stronger attack may tell more."
        )
    heads = (GridColumn("Method", "text"), GridColumn("Seeds"), GridColumn("Student", main=True))
    return Grid("Figures by method", (*heads, *map(GridColumn, others)), tuple(cells), note)


def noted(score: ShownScore, spread: Spread | None) -> Cell:
    """A mean, and its deviation beside it."""
    if spread is None:
        return figures.UNKNOWN
    deviation = "" if spread.std is None else f"± {figures.deviation(score, spread.std)}"
    return Noted(figures.figure(score, spread.mean), deviation)


def _size(spread: Spread) -> str:
    return f"± {wording.size(spread.std)}" if spread.std else ""


def _runs(runs: Sequence[FinishedRun], score: ShownScore, beside: Path) -> Grid:
    names = Counter(run.summary.name for run in runs)
    rows: list[tuple[Cell, ...]] = []
    for run in sorted(runs, key=lambda run: (run.summary.method, run.summary.seed)):
        summary = run.summary
        # Runs of one experiment share its name: they are told apart by their folders.
        name = summary.name if names[summary.name] == 1 else run.path.resolve().name
        link = Link(name, links.address(run.path / "report.html", beside))
        reached = figures.figure(score, summary.student.number(score.figure))
        rows.append((link, summary.method, f"{summary.seed}", reached))
    heads = (
        GridColumn("Run", "text"),
        GridColumn("Method", "text"),
        GridColumn("Seed"),
        GridColumn("Student"),
    )
    return Grid("The runs", heads, tuple(rows))
