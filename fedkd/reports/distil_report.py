"""A distillation's report: one self-contained HTML file."""

from pathlib import Path

from fedkd.files import write_atomically
from fedkd.reports import figures, wording
from fedkd.reports.charts.distil import loss_by_epoch, score_by_epoch
from fedkd.reports.charts.drawing import Chart
from fedkd.reports.charts.examples import examples
from fedkd.reports.charts.stages import score_by_stage
from fedkd.reports.report import Tile, page
from fedkd.runs.distil_schema import DistilRun, Model, read
from fedkd.runs.examples import read as read_examples


def write(folder: Path) -> Path:
    """Write `report.html` into a finished run's folder, and return its path.

    Raises:
        RunFolderError: the folder is no finished distillation, or a file in it is corrupt.
    """
    run, shown = read(folder), read_examples(folder)
    models = [("Student", run.summary.student)]
    models += [(f"Teacher {i}", each) for i, each in enumerate(run.summary.teachers, 1)]
    text = page(
        "distil.html",
        run=run,
        score=run.summary.headline,
        headline=_headline(run),
        finding=_finding(run),
        stamp=_stamp(run),
        privacy=_privacy(run),
        protected=run.summary.privacy.epsilon is not None,
        tiles=_tiles(run),
        models=models,
        examples=examples(shown) if shown else None,
        charts=_charts(run),
    )
    report = folder / "report.html"
    write_atomically(report, text)
    return report


def _charts(run: DistilRun) -> list[Chart]:
    told = run.summary.continual
    drawn = [None if told is None else score_by_stage(told, run.summary.headline)]
    drawn += [score_by_epoch(run), loss_by_epoch(run)]
    return [each for each in drawn if each is not None]


def _headline(run: DistilRun) -> str:
    summary = run.summary
    forms = f" by {wording.listing(summary.knowledge)}" if summary.knowledge else ""
    taught = "learned by itself"
    if summary.teachers:
        kinds = list(dict.fromkeys(each.model for each in summary.teachers))
        noun = wording.plural(len(summary.teachers), "teacher")
        taught = f"learned from {noun} ({wording.listing(kinds)}){forms}"
    name = wording.dataset(summary.dataset)
    return f"One {summary.student.model} student {taught} on {name}; way to learn: {summary.way}."


def _finding(run: DistilRun) -> str:
    summary, score = run.summary, run.summary.headline
    student = summary.student.number(score.figure)
    text = f"It ends at {figures.named(score, student)} on the test set"
    if summary.gain is None or summary.plain is None:
        return f"{text}."
    kind = "gain" if round(summary.gain, 3) > 0 else "loss" if round(summary.gain, 3) < 0 else ""
    than = f"{figures.above(score, student - summary.plain)} the same student on labels alone"
    return f"{text}, {than}{f': a {kind}' if kind else ''}."


def _tiles(run: DistilRun) -> list[Tile]:
    summary, student, score = run.summary, run.summary.student, run.summary.headline
    at = student.number(score.figure)
    label = f"Student {figures.name(score)}"
    tiles = [Tile(label, figures.figure(score, at), f"on the test set{figures.better(score)}")]
    if summary.plain is not None:
        note = f"at {figures.figure(score, summary.plain)}"
        tiles.append(Tile("vs student alone", figures.difference(score, at - summary.plain), note))
    if summary.teachers:
        reached = {n: each.number(score.figure) for n, each in enumerate(summary.teachers)}
        number = score.ranked(reached)[0]
        best, high = summary.teachers[number], reached[number]
        if not summary.own_tokens:
            gap = figures.difference(score, at - high)
            tiles.append(Tile("vs best teacher", gap, f"at {figures.figure(score, high)}"))
        tiles.append(
            Tile("Size", wording.size(student.bytes), f"teacher {wording.size(best.bytes)}")
        )
        for rows, label in ((1, "One input"), (100, "100 inputs")):
            note = f"teacher {_milliseconds(best, rows)}"
            tiles.append(Tile(label, _milliseconds(student, rows), note))
    else:
        tiles.append(
            Tile("Size", wording.size(student.bytes), f"{student.parameters:,} parameters")
        )
        tiles.append(Tile("One input", _milliseconds(student, 1), "on one thread"))
    return tiles


def _milliseconds(model: Model, rows: int) -> str:
    return f"{model.latency[rows]:.2f} ms"


def _stamp(run: DistilRun) -> str:
    spent = run.summary.privacy.epsilon
    return "NO DP" if spent is None else f"epsilon {spent:.4g}"


def _privacy(run: DistilRun) -> str:
    privacy = run.summary.privacy
    if privacy.epsilon is None:
        return (
            "No differential privacy: whoever gets the student may learn about single training "
            "samples."
        )
    return (
        f"The student learnt by DP-SGD: it hides whether any one record was among the training "
        f"data, at epsilon {privacy.epsilon:.4g} and delta {privacy.delta:g} "
        f"({privacy.adjacency}, by {privacy.accountant}), of a budget of {privacy.budget:g}. The "
        "teachers are given and declared to have learnt from public data; if one saw "
        "these records, the figure does not hold."
    )
