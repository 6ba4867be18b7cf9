"""`fedkd sweep`: one configuration over a grid of values and seeds."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fedkd.cli.common import (
    Config,
    Override,
    answer,
    beside,
    import_beside,
    line,
    report_line,
    say_step,
)

if TYPE_CHECKING:
    from fedkd.jobs.planned import PlannedRun
    from fedkd.reports.sweeps.rows import SweepRow


def sweep(
    config: Config,
    *,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            help="A key and the values that it takes, such as method.name=fedavg,fedmd; each as in "
            "--set, a list or table in brackets; may be repeated for every combination.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds for each combination.")] = 3,
    override: Override = None,
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="The folder for all runs.", show_default="runs/NAME-swept"),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Leave finished runs, go on in those that were begun, and start the rest; more "
            "values and seeds may be asked for.",
        ),
    ] = False,
    on: Annotated[
        Literal["here", "ray"],
        typer.Option(
            help="ray: runs side by side, on the cluster that RAY_ADDRESS names or this machine."
        ),
    ] = "here",
) -> None:
    """Run every combination of some values over seeds, of a federation or a distillation.

    Prints a table with mean and standard deviation, and writes one report beside each run's own. A
    run that fails is named, and the others go on; the exit status is then 1.

    Example: fedkd sweep demo --grid method.name=fedmd,dsfl --grid rounds=2,5 --seeds 2
    """
    from fedkd.config import load_either
    from fedkd.jobs import planned
    from fedkd.jobs import sweep as sweeping
    from fedkd.reports.sweeps import page, spending

    import_beside(config)
    runs = planned.plan(
        lambda settings: load_either(config, [*(override or ()), *settings]), grid or (), seeds
    )
    first = runs[0].config
    path = folder or Path(first.output.folder) / f"{first.name}-swept"
    done = sweeping.run_all(runs, path, watched, resume=resume, where=on, on_end=_say_end)
    if done.finished:
        rows, spent = sweeping.report(done)
        stamp, meaning = spending.in_words(spent)
        value = {
            "report": path / "report.html",
            "rows": [_row(row) for row in rows],
            "failed": done.failed,
            "privacy": {"stamp": stamp, "meaning": meaning},
        }
        lines = (line(f"{stamp}: {meaning}"), report_line(path / "report.html"))
        answer(value, page.table(rows), *lines)
    done.require_all()


def _row(row: "SweepRow") -> dict[str, Any]:
    return {
        "settings": row.settings,
        "runs": [run.path for run in row.runs],
        "seeds": [run.seed for run in row.runs],
        "score": row.runs[0].score.name,
        "student": asdict(row.student),
        "beside": {name: asdict(spread) for name, spread in row.beside.items()},
        "bytes_up": row.up and asdict(row.up),
        "seconds": asdict(row.seconds),
    }


def _say_end(run: "PlannedRun", why: str) -> None:
    say_step(f"{run.name}: failed, {why}" if why else f"{run.name}: done")


@contextmanager
def watched(run: "PlannedRun") -> Iterator[Any]:
    """A display of one of several runs, under its name."""
    from fedkd.api.showing import one_of_several

    say_step(run.name)
    with one_of_several(run, beside) as told:
        yield told
