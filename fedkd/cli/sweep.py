"""`fedkd sweep`: one configuration over a grid of values and seeds."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fedkd.cli.common import Config, Override, import_beside, out, say, say_report, watch

if TYPE_CHECKING:
    from fedkd.jobs.planned import PlannedRun


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
        out.print(page.table(rows))
        say(": ".join(spending.in_words(spent)))
        say_report(path / "report.html")
    done.require_all()


def _say_end(run: "PlannedRun", why: str) -> None:
    say(f"{run.name}: failed, {why}" if why else f"{run.name}: done")


@contextmanager
def watched(run: "PlannedRun") -> Iterator[Any]:
    """A display of one of several runs, under its name."""
    from fedkd.config import Distillation
    from fedkd.reports.bar import progress

    say(run.name)
    told = progress(out) if isinstance(run.config, Distillation) else watch(run.config)
    with told as each:
        yield each
