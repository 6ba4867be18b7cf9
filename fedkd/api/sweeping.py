"""Sweeps by one call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from fedkd.api import settings, showing
from fedkd.api.run import ReportPage, Run
from fedkd.api.settings import Config, Overrides
from fedkd.api.showing import Progress
from fedkd.config import Distillation, Experiment
from fedkd.config.overrides import Override
from fedkd.jobs import planned
from fedkd.jobs import sweep as sweeping
from fedkd.jobs.sweep import Where
from fedkd.reports import notebook
from fedkd.reports.sweeps import page
from fedkd.reports.sweeps.rows import SweepRow


@dataclass(frozen=True)
class Sweep:
    """Every combination of some values, over seeds.

    Attributes:
        path: of the folder that holds all runs.
        runs: those that came to their end, in the order of the plan.
        failed: why the others did not, by name.
    """

    path: Path
    runs: tuple[Run, ...]
    failed: Mapping[str, str]
    _rows: tuple[SweepRow, ...]

    @property
    def report(self) -> ReportPage:
        """The page that shows all of them."""
        return ReportPage(self.path / "report.html")

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each combination over its seeds, the best first, for `pandas.DataFrame`.

        Scores are of the test set, which flatters whatever is chosen by them.
        """
        return [
            {
                **row.settings,
                "seeds": len(row.runs),
                "student": row.student.mean,
                "student_std": row.student.std,
                **{name.replace(" ", "_"): each.mean for name, each in row.beside.items()},
                "seconds": row.seconds.mean,
            }
            for row in self._rows
        ]

    def _repr_html_(self) -> str:
        return notebook.html(page.table(self._rows))


def sweep(
    config: Config,
    grid: Mapping[str, Sequence[Any]] | Sequence[str],
    overrides: Overrides = (),
    *,
    seeds: int = 3,
    out: str | Path | None = None,
    resume: bool = False,
    on: Where = "here",
    data: object = None,
    progress: Progress = True,
    **changes: Any,
) -> Sweep:
    """Run every combination of some values over seeds, of a federation or of one party alone.

        fedkd.sweep("demo", {"method.name": ["fedmd", "dsfl"], "rounds": [2, 5]}, seeds=2).rows

    A run that fails is named in `failed`, and the others go on.

    Args:
        config: as of `simulate` or `distil`.
        grid: the values that each key takes, by the key's path.
        overrides: as of `simulate`; what holds for all runs.
        seeds: how many runs of each combination, from the configuration's own seed on.
        out: the folder for all runs; None: `runs/NAME-swept`. It must be new.
        resume: leave finished runs, go on in those that were begun, and start the rest.
        on: "here", one after the other, or "ray", on the cluster that RAY_ADDRESS names or this
            machine.
        data: as of `simulate`.
        progress: as of `simulate`.
        changes: as `overrides`.

    Raises:
        UsageError: a combination or the folder will not do; nothing was run.
        BudgetError: a run as planned costs more than its budget.
        FedkdError: every run failed.
    """
    with settings.overriding(overrides, changes, data) as said:

        def load(more: Sequence[Override]) -> Experiment | Distillation:
            return settings.either(config, [*said, *more])

        runs = planned.plan(load, grid, seeds)
        folder = settings.run_folder(runs[0].config, out, also="-swept")
        watch = partial(showing.one_of_several, progress=progress)
        done = sweeping.run_all(runs, folder, watch, resume=resume, where=on)
    if not done.finished:
        done.require_all()
    rows, _ = sweeping.report(done)
    return Sweep(folder, tuple(map(Run, done.folders)), done.failed, tuple(rows))
