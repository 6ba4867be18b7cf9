"""The report of a federation's run: what it holds."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from fedkd.reports import figures, lateness, wording
from fedkd.reports.charts import costs, curves, heatmaps
from fedkd.reports.charts.clients import score_by_client
from fedkd.reports.charts.drawing import Chart
from fedkd.reports.charts.examples import examples
from fedkd.reports.charts.gallery import gallery
from fedkd.reports.charts.spending import spending
from fedkd.reports.charts.stages import score_by_stage
from fedkd.reports.grid import Grid, GridColumn, columns
from fedkd.reports.parts import (
    Facts,
    FileText,
    Folded,
    Items,
    Paragraph,
    Part,
    Report,
    Section,
    Tile,
    section,
    sections,
)
from fedkd.reports.sections import rounds as tables
from fedkd.runs.examples import read as read_examples
from fedkd.runs.reading import read, read_generated
from fedkd.runs.schema import Capped, FinishedRun, Round
from fedkd.runs.scores import Scores


def of(folder: Path) -> Report:
    """The report of a finished run.

    Raises:
        RunFolderError: the folder is no finished run, or a file in it is missing or corrupt.
    """
    run = read(folder)
    generated, shown = read_generated(folder), read_examples(folder)
    classes = (
        run.partition.classes
        if run.partition
        else tuple(f"class {label}" for label in range(run.rounds[-1].student.classes))
    )
    if shown is not None and len(shown.classes) == len(classes):
        classes = shown.classes  # a task may have names for what is numbers in the data
    summary = run.summary
    spent = [spending(run.rounds, summary.privacy)]
    return Report(
        kind="run",
        name=summary.name,
        about=(summary.method, f"seed {summary.seed}"),
        started=run.environment.started,
        lead=wording.headline(run),
        findings=(figures.finding(run),),
        stamp=wording.stamp(summary.privacy),
        privacy=wording.privacy(run),
        protected=wording.protects(summary.privacy),
        tiles=tuple(_tiles(run)),
        sections=sections(
            [
                section("learnt", "What was learnt", _learnt(run, classes)),
                section("scores", "Every score", [_scores(run)]),
                section("personal", "On clients’ own held-out records", [_personal(run)]),
                section("data", "Who held what", _data(run)),
                section("examples", "What it looks like", [examples(shown) if shown else None]),
                section(
                    "generated",
                    "What the generator draws",
                    [gallery(generated, classes) if generated else None],
                ),
                section("spent", "What privacy was spent", spent),
                section("released", "What left the clients", [_released(run)]),
                section("costs", "What it cost", [costs.traffic(run.rounds),
                                                  costs.time_by_phase(run.rounds)]),
                section("late", "Who was late", [_late(run)]),
                section("failures", "Failures", tables.failures(run.rounds)),
                section("capped", "Claims that were cut", _capped(run.rounds)),
                section("screened", tables.UNLIKE, tables.screened(run.rounds)),
                _details(run),
            ]
        ),
    )  # fmt: skip


def _tiles(run: FinishedRun) -> list[Tile]:
    summary, score = run.summary, run.summary.headline
    teachers, ensemble = summary.teachers, summary.ensemble
    student = summary.student.number(score.figure)
    whole = [each.student for each in run.scored if not each.student.records]
    reached = {value for each in whole for value in (*each.curve, each.number(score.figure))}
    best_of_all = summary.student.number(score.at_best)
    partly = "" if best_of_all in reached else ", on part of the test set"
    best = f"{figures.figure(score, best_of_all)} at its best{partly}"
    tiles = [Tile(f"Student {figures.name(score)}", figures.figure(score, student), best)]
    others = {}
    if teachers is not None:
        some = f" of {teachers.scored} scored" if teachers.scored else ""
        others[f"vs best teacher{some}"] = teachers.number(score.at_best)
        others[f"vs teachers’ mean{some}"] = teachers.number(score.mean)
    if ensemble is not None:
        others["vs ensemble"] = ensemble.number(score.figure)
    for label, other in others.items():
        gain = figures.difference(score, student - other)
        tiles.append(Tile(label, gain, f"at {figures.figure(score, other)}"))
    received = f"received {wording.size(summary.bytes.down)}"
    tiles.append(Tile("Sent by the clients", wording.size(summary.bytes.up), received))
    each = f"{wording.duration(summary.seconds / max(1, summary.rounds))} a round"
    tiles.append(Tile("Time", wording.duration(summary.seconds), each))
    return tiles


def _learnt(run: FinishedRun, classes: Sequence[str]) -> Iterable[Part | None]:
    last, score = run.rounds[-1], run.summary.headline
    drawn: list[Chart | None]
    if len(run.scored) > 1:
        drawn = [curves.score_by_round(run.scored, score)]
    else:
        drawn = [curves.score_once(last, score), curves.score_by_epoch(last, score)]
    if last.teachers is not None:
        drawn.append(score_by_client(last, last.teachers.by_client, score))
    drawn.append(heatmaps.score_by_class(last, classes, score))
    if run.summary.continual is not None:
        drawn.append(score_by_stage(run.summary.continual, score))
    found = (last.student.table(each.figure) for each in run.summary.scores)
    drawn += [heatmaps.confusion(each, classes) for each in found if each is not None]
    measured = wording.measured(run)
    return [*drawn, Paragraph(measured, note=True, id="measured") if measured else None]


def _scores(run: FinishedRun) -> Grid | None:
    """Who is scored in the last round, by every number; None where there is one number alone."""
    last, numbers = run.rounds[-1], run.summary.numbers
    if len(numbers) < 2:
        return None
    models: list[tuple[str, Scores]] = [("Student", last.student)]
    if last.ensemble is not None:
        models.append(("Ensemble", last.ensemble))
    if last.teachers is not None:
        each = last.teachers.by_client.items()
        models += [(f"Client {client}, {teacher.model}", teacher) for client, teacher in each]
    rows = [
        (name, *(figures.figure(each, model.number(each.figure)) for each in numbers))
        for name, model in models
    ]
    heads = (f"{figures.title(each)}{figures.better(each)}" for each in numbers)
    note = "On the test set, after the last round."
    return Grid("Every score", columns("Model", *heads), tuple(rows), note)


def _personal(run: FinishedRun) -> Part | None:
    if run.summary.personal is not None:
        return tables.personal(run, run.summary.personal)
    if run.experiment.clients.test_share:
        return Paragraph(
            "Scores on private records are facts about them, so under this run’s protection they "
            "are withheld."
        )
    return None


def _data(run: FinishedRun) -> Iterable[Part | None]:
    if run.partition is None or run.deployed:
        return []
    known = Paragraph("The simulation knows these counts; no client sent them.", note=True)
    hidden = run.summary.privacy.unit != "none"
    return [heatmaps.partition(run.partition), known if hidden else None]


def _released(run: FinishedRun) -> Part | None:
    if run.summary.released:
        rows = [
            (each.field, each.provenance, f"{each.times:,}", wording.size(each.bytes))
            for each in run.summary.released
        ]
        return Grid(
            "What left the clients",
            (
                GridColumn("Field", "text"),
                GridColumn("Provenance", "text"),
                GridColumn("Times"),
                GridColumn("Bytes"),
            ),
            tuple(rows),
            "From the receipts of the clients’ release gates, over all rounds.",
        )
    if run.deployed:
        return Paragraph(
            "Each client has the receipts of what left it, in its own "
            "`state/runs/*/receipts.jsonl`; nobody else has."
        )
    return None


def _late(run: FinishedRun) -> Grid | None:
    how = run.experiment.clients.asynchronous
    if how is None or not (late := lateness.by_client(run.rounds)):
        return None
    note = (
        f"The server made a step after {how.buffer} answers, and used none to a broadcast of more "
        f"than {how.staleness} steps before. Not used is what was too late, replaced by a newer "
        "answer, or failed."
    )
    if (lasted := lateness.lasted(run.rounds)) is not None:
        clock = "run" if run.deployed else "virtual clock"
        note += f" The last step was made at second {lasted:.4g} of the {clock}."
    rows = [
        (
            f"Client {each.client}",
            f"{each.used}",
            "–" if each.mean is None else f"{each.mean:.1f}",
            "–" if each.most is None else f"{each.most}",
            f"{each.unused}",
        )
        for each in late
    ]
    heads = ("Answers used", "Steps late on average", "At most", "Answers not used")
    return Grid("Who was late", columns("Client", *heads), tuple(rows), note)


def _capped(rounds: Sequence[Round]) -> list[Part]:
    """Who claimed more than it was let have, a sentence a client: its largest claim."""
    largest: dict[int, Capped] = {}
    for cut in (cut for each in rounds for cut in each.capped):
        if cut.client not in largest or largest[cut.client].claimed < cut.claimed:
            largest[cut.client] = cut
    if not largest:
        return []
    said = (wording.capped(**cut.model_dump()) for _, cut in sorted(largest.items()))
    return [
        Paragraph(
            "A client’s count of samples is its own word. None is believed to hold a larger share "
            "than `clients.max_weight`, and these claimed more:"
        ),
        Items(tuple(f"{text[0].upper()}{text[1:]}." for text in said)),
    ]


def _details(run: FinishedRun) -> Section | None:
    environment = ((name, str(value)) for name, value in run.environment.model_dump().items())
    return section(
        "details",
        "In detail",
        [
            Folded("Every round in figures", tables.every_round(run)),
            Folded("Configuration", FileText(run.experiment.to_toml(), "toml")),
            Folded("Environment", Facts(tuple(environment))),
        ],
    )
