"""A run's report, and the comparison of several: one self-contained HTML file each."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from fedkd.errors import RunFolderError
from fedkd.files import make_folder, write_atomically
from fedkd.reports import comparison, figures, lateness, wording
from fedkd.reports.charts import costs, curves, heatmaps, methods
from fedkd.reports.charts.clients import score_by_client
from fedkd.reports.charts.drawing import Chart
from fedkd.reports.charts.examples import examples
from fedkd.reports.charts.gallery import gallery
from fedkd.reports.charts.spending import spending
from fedkd.reports.charts.stages import score_by_stage
from fedkd.runs.examples import read as read_examples
from fedkd.runs.reading import read, read_generated
from fedkd.runs.schema import Capped, FinishedRun, Round
from fedkd.runs.scores import Scores, ShownScore


@dataclass(frozen=True)
class Tile:
    """A key figure: what it is, its value, and what to hold it against."""

    label: str
    value: str
    note: str


def write(folder: Path) -> Path:
    """Write `report.html` into a finished run's folder, and return its path.

    Raises:
        RunFolderError: the folder is no finished run, or a file in it is missing or corrupt.
    """
    run = read(folder)
    generated, shown = read_generated(folder), read_examples(folder)
    score = run.summary.headline
    classes = (
        run.partition.classes
        if run.partition
        else tuple(f"class {label}" for label in range(run.rounds[-1].student.classes))
    )
    if shown is not None and len(shown.classes) == len(classes):
        classes = shown.classes  # a task may have names for what is numbers in the data
    text = page(
        "run.html",
        run=run,
        headline=wording.headline(run),
        score=score,
        finding=figures.finding(run),
        privacy=wording.privacy(run),
        stamp=wording.stamp(run.summary.privacy),
        protected=wording.protects(run.summary.privacy),
        spending=spending(run.rounds, run.summary.privacy),
        tiles=_tiles(run),
        numbers=run.summary.numbers,
        measured=wording.measured(run),
        models=_models(run.rounds[-1]),
        personal=run.summary.personal,
        learnt=_learnt(run, classes),
        costs=[costs.traffic(run.rounds), costs.time_by_phase(run.rounds)],
        partition=heatmaps.partition(run.partition) if run.partition and not run.deployed else None,
        examples=examples(shown) if shown else None,
        gallery=gallery(generated, classes) if generated else None,
        failures=_failures(run.rounds),
        capped=_capped(run.rounds),
        lateness=lateness.by_client(run.rounds),
        lasted=lateness.lasted(run.rounds),
        screened=_screened(run.rounds),
        losses=list(dict.fromkeys(name for each in run.rounds for name in each.losses)),
    )
    report = folder / "report.html"
    write_atomically(report, text)
    return report


def write_comparison(folders: Sequence[Path], out: Path) -> Path:
    """Write a page that compares runs, methods by seeds, to `out`, and return its path.

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
    text = page(
        "comparison.html",
        headline=_comparison_headline(rows, runs, score),
        score=score,
        **_comparison_privacy(runs),
        rows=rows,
        runs=sorted(runs, key=lambda run: (run.summary.method, run.summary.seed)),
        charts=drawn,
        differences=comparison.differences(runs),
        link=lambda run: link(run.path / "report.html", out.parent),
    )
    if out.is_dir():
        raise RunFolderError(f"{str(out)!r} is a folder: expected the path of the page to write")
    make_folder(out.parent)
    write_atomically(out, text)
    return out


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


def _learnt(run: FinishedRun, classes: Sequence[str]) -> list[Chart]:
    last, score = run.rounds[-1], run.summary.headline
    if len(run.scored) > 1:
        drawn: list[Chart | None] = [curves.score_by_round(run.scored, score)]
    else:
        drawn = [curves.score_once(last, score), curves.score_by_epoch(last, score)]
    if last.teachers is not None:
        drawn.append(score_by_client(last, last.teachers.by_client, score))
    drawn.append(heatmaps.score_by_class(last, classes, score))
    if run.summary.continual is not None:
        drawn.append(score_by_stage(run.summary.continual, score))
    tables = (last.student.table(each.figure) for each in run.summary.scores)
    drawn += [heatmaps.confusion(each, classes) for each in tables if each is not None]
    return [chart for chart in drawn if chart is not None]


def _models(last: Round) -> list[tuple[str, Scores]]:
    """Who is scored in the last round, by name."""
    models: list[tuple[str, Scores]] = [("Student", last.student)]
    if last.ensemble is not None:
        models.append(("Ensemble", last.ensemble))
    if last.teachers is not None:
        each = last.teachers.by_client.items()
        models += [(f"Client {client}, {teacher.model}", teacher) for client, teacher in each]
    return models


def _failures(rounds: Sequence[Round]) -> list[tuple[int, int, str]]:
    return [(each.round, f.client, f.reason) for each in rounds for f in each.failures]


def _capped(rounds: Sequence[Round]) -> list[str]:
    """Who claimed more than it was let have, a sentence a client: its largest claim."""
    largest: dict[int, Capped] = {}
    for cut in (cut for each in rounds for cut in each.capped):
        if cut.client not in largest or largest[cut.client].claimed < cut.claimed:
            largest[cut.client] = cut
    sentences = [wording.capped(**cut.model_dump()) for _, cut in sorted(largest.items())]
    return [f"{text[0].upper()}{text[1:]}." for text in sentences]


def _screened(
    rounds: Sequence[Round],
) -> list[tuple[int, float | None, int, int, float | None, float | None, float | None]]:
    """A row for each client that was far from the rest in some round, the least like first.

    The client, its mean agreement, the rounds in which it was not heard, those in which it was
    compared, the smallest factor by which its distance was cut, how far it was at most from what
    came of all, over the median client's distance, and on what share of inputs it was not heard.
    """
    found = [each.robust for each in rounds if each.robust is not None]
    odd = {client for each in found for client in each.left_out}
    odd |= {int(client) for each in found for client in each.drawn_nearer}
    odd |= {int(c) for each in found for c, away in each.apart.items() if away > wording.FAR}
    odd |= {int(c) for each in found for c, share in each.unheard.items() if share > wording.OFTEN}
    rows = []
    for client in odd:
        own = [each.agreement[key] for each in found if (key := str(client)) in each.agreement]
        cuts = [each.drawn_nearer[key] for each in found if key in each.drawn_nearer]
        out = sum(client in each.left_out for each in found)
        away = max((each.apart[key] for each in found if key in each.apart), default=None)
        unheard = max((each.unheard[key] for each in found if key in each.unheard), default=None)
        agreement = sum(own) / len(own) if own else None
        rows.append((client, agreement, out, len(own), min(cuts, default=None), away, unheard))
    return sorted(rows, key=lambda row: (row[1] or 0.0, -(row[5] or 0.0)))


def _comparison_headline(
    rows: Sequence[comparison.ComparisonRow], runs: Sequence[FinishedRun], score: ShownScore
) -> str:
    datasets = sorted({wording.dataset(run.summary.dataset) for run in runs})
    best = rows[0]
    spread = "" if best.student.std is None else f" ± {figures.deviation(score, best.student.std)}"
    sentence = (
        f"{wording.plural(len(rows), 'method')} on {wording.listing(datasets)}, "
        f"{wording.plural(len(runs), 'run')}: the best student comes from {best.method}, with "
        f"{figures.named(score, best.student.mean)}{spread} on the test set."
    )
    return sentence[0].upper() + sentence[1:]


def _comparison_privacy(runs: Sequence[FinishedRun]) -> dict[str, Any]:
    bare = sum(run.summary.privacy.epsilon is None for run in runs)
    if not bare:
        most = max((run.summary.privacy for run in runs), key=lambda privacy: privacy.epsilon or 0)
        text = (
            f"The most that any of these runs spent: {wording.cost(most)}. Runs whose ledgers are "
            "their own and whose data is the same cost that data more than this together."
        )
        return {"protected": wording.protects(most), "stamp": wording.stamp(most), "privacy": text}
    which = "any" if bare == len(runs) else wording.number(bare)
    text = (
        f"No differential privacy in {which} of these runs: what left the clients is not protected "
        "by noise."
    )
    return {"protected": False, "stamp": "NO DP", "privacy": text}


def link(report: Path, folder: Path) -> str | None:
    """A relative address for a page in `folder`; None where the report was not written."""
    if not report.is_file():
        return None
    return quote(Path(os.path.relpath(report.resolve(), folder.resolve())).as_posix())


def page(template: str, **values: Any) -> str:
    """A page of `templates/`, filled in."""
    return _templates().get_template(template).render(values)


@cache
def _templates() -> Environment:
    """The templates, each compiled once: that takes longer than to fill one in."""
    environment = Environment(
        loader=PackageLoader("fedkd.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": lambda value, score: figures.figure(score, value),
        "deviation": lambda value, score: figures.deviation(score, value),
        "named": figures.name,
        "titled": figures.title,
        "better": figures.better,
        "size": wording.size,
        "duration": wording.duration,
        "dataset": wording.dataset,
    }
    return environment
