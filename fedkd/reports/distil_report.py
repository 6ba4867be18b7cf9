"""A distillation's report: a self-contained HTML file, or Markdown."""

from collections.abc import Iterable
from pathlib import Path

from fedkd.files import write_atomically
from fedkd.reports import figures, html, links, markdown, wording
from fedkd.reports.charts.distil import loss_by_epoch, score_by_epoch
from fedkd.reports.charts.examples import examples
from fedkd.reports.charts.stages import score_by_stage
from fedkd.reports.grid import Grid, GridColumn, columns
from fedkd.reports.parts import Facts, FileText, Folded, Part, Report, Tile, section, sections
from fedkd.runs.distil_schema import DistilRun, Model, read
from fedkd.runs.examples import read as read_examples


def write(folder: Path) -> Path:
    """Write `report.html` into a finished run's folder, and return its path.

    Raises:
        RunFolderError: the folder is no finished distillation, or a file in it is corrupt.
    """
    report = folder / "report.html"
    write_atomically(report, html.render(_of(folder), links.compared(report)))
    return report


def write_markdown(folder: Path, out: Path) -> Path:
    """Write the report as Markdown to `out`, its charts in a folder beside it.

    Raises:
        RunFolderError: as in `write`.
    """
    return markdown.write(_of(folder), out)


def _of(folder: Path) -> Report:
    run, shown = read(folder), read_examples(folder)
    summary = run.summary
    environment = ((name, str(value)) for name, value in run.environment.model_dump().items())
    details = [
        Folded("Every epoch in figures", _epochs(run)),
        Folded("Configuration", FileText(run.distillation.to_toml(), "toml")),
        Folded("Environment", Facts(tuple(environment))),
    ]
    return Report(
        kind="distillation",
        name=summary.name,
        about=(summary.way, f"seed {summary.seed}"),
        started=run.environment.started,
        lead=_headline(run),
        findings=(_finding(run),),
        stamp=_stamp(run),
        privacy=_privacy(run),
        protected=summary.privacy.epsilon is not None,
        tiles=tuple(_tiles(run)),
        sections=sections(
            [
                section("learnt", "What was learnt", _charts(run)),
                section("examples", "What it looks like", [examples(shown) if shown else None]),
                section("models", "Size and speed", [_models(run)]),
                section("details", "In detail", details),
            ]
        ),
    )


def _models(run: DistilRun) -> Grid:
    summary, score = run.summary, run.summary.headline
    models = [("Student", summary.student)]
    models += [(f"Teacher {i}", each) for i, each in enumerate(summary.teachers, 1)]
    rows = [
        (
            f"{name}: {model.model}",
            figures.figure(score, model.number(score.figure)),
            f"{model.parameters:,}",
            wording.size(model.bytes),
            _milliseconds(model, 1),
            _milliseconds(model, 100),
        )
        for name, model in models
    ]
    if summary.plain is not None:
        rows.append(("Student alone", figures.figure(score, summary.plain), *"––––"))
    heads = (figures.title(score), "Parameters", "Bytes", "1 input", "100 inputs")
    note = "Median milliseconds for a batch, on one thread of the machine that made the run."
    return Grid("Size and speed", columns("Model", *heads), tuple(rows), note)


def _epochs(run: DistilRun) -> Grid:
    score = run.summary.headline
    rows = tuple(
        (
            each.stage,
            f"{each.epoch}",
            "–" if each.loss is None else f"{each.loss:.4g}",
            figures.figure(score, each.number(score.figure)),
            wording.duration(each.seconds),
        )
        for each in run.epochs
    )
    heads = (
        GridColumn("Training", "text"),
        *map(GridColumn, ("Epoch", "Loss", figures.title(score), "Time")),
    )
    return Grid("Every epoch in figures", heads, rows, tall=True)


def _charts(run: DistilRun) -> Iterable[Part | None]:
    told = run.summary.continual
    by_stage = None if told is None else score_by_stage(told, run.summary.headline)
    return [by_stage, score_by_epoch(run), loss_by_epoch(run)]


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
