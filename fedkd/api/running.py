"""Federations and distillations by one call each.

What runs them is imported once the configuration is sound: a wrong key is said at once, and one
party's distillation does not wait for what federations need.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fedkd.api import settings, showing
from fedkd.api.run import Comparison, Run
from fedkd.api.settings import Config, Overrides
from fedkd.api.showing import Progress


def simulate(
    config: Config,
    overrides: Overrides = (),
    *,
    out: str | Path | None = None,
    resume: bool = False,
    replay: str | Path | None = None,
    data: object = None,
    progress: Progress = True,
    **changes: Any,
) -> Run:
    """Simulate a federation on this machine.

        run = fedkd.simulate("demo", rounds=2, method__name="dsfl")

    Args:
        config: a TOML file, the name of an experiment that comes with fedkd, a table, or an
            `Experiment`.
        overrides: changes of the configuration, by a key's path: `{"method.name": "dsfl"}`.
        out: the run folder; None: the configuration's own, `runs/NAME`. It must be new.
        resume: go on in that folder after the last finished round, to the same bits but for DP
            noise; a finished run goes on for more rounds.
        replay: a run with `clients.asynchronous`, whose clients answer in the order that they had
            there; the student must be the same to the bit.
        data: in place of `data.name` a path, or Python objects: arrays by name,
            `{"x_train": ..., "y_train": ...}`, as an `.npz` file has them, a data set of torch, or
            a pair of these for training and testing. They are private, so no copy is kept: whoever
            resumes passes them again.
        progress: whether rounds are shown as they go; or the `rich.console.Console` that shows
            them.
        changes: as `overrides`, with two underscores for a dot: `method__name="dsfl"`.

    Raises:
        UsageError: the configuration, the data or the folder will not do; nothing was written.
        BudgetError: it would cost more privacy than its budget.
        FederationError: the federation could not go on; the folder holds the rounds so far.
    """
    with settings.overriding(overrides, changes, data) as said:
        experiment = settings.experiment(config, said)
        settings.check_engine(experiment)
        folder = settings.run_folder(experiment, out)
        from fedkd.jobs.simulate import simulate as run

        with showing.rounds(experiment, progress) as observer:
            there = None if replay is None else Path(replay)
            run(experiment, folder, observer, resume=resume, replay=there)
    return Run(folder)


def distil(
    config: Config,
    overrides: Overrides = (),
    *,
    out: str | Path | None = None,
    resume: bool = False,
    data: object = None,
    progress: Progress = True,
    **changes: Any,
) -> Run:
    """Distil for one party: a given or trained teacher, a smaller student, any form and way.

    Args:
        config: as of `simulate`, of a distillation.
        overrides: as of `simulate`.
        out: as of `simulate`.
        resume: take up the stages that an earlier run in that folder finished.
        data: as of `simulate`.
        progress: as of `simulate`.
        changes: as of `simulate`.

    Raises:
        UsageError: as `simulate`.
        BudgetError: as `simulate`.
        FederationError: training diverged.
    """
    with settings.overriding(overrides, changes, data) as said:
        distillation = settings.distillation(config, said)
        folder = settings.run_folder(distillation, out)
        from fedkd.jobs.distil import distil as run

        with showing.phases(progress) as notify:
            run(distillation, folder, notify, resume=resume)
    return Run(folder)


def compare(
    config: Config,
    methods: Sequence[str],
    overrides: Overrides = (),
    *,
    seeds: int = 3,
    answers: Sequence[str] = (),
    audit: bool = False,
    out: str | Path | None = None,
    resume: bool = False,
    data: object = None,
    progress: Progress = True,
    **changes: Any,
) -> Comparison:
    """Run several methods, or forms of answers, on the same experiment and seeds.

    Args:
        config: as of `simulate`.
        methods: by name; `fedmd+epsilon=8` is one under keys of `[privacy]`.
        overrides: as of `simulate`.
        seeds: how many runs of each method, from the experiment's own seed on.
        answers: how answers are written, such as "float16" or "transform+delta"; none: as the
            experiment has it.
        audit: whether each run is attacked too: who was among the private records.
        out: the folder for all runs; None: `runs/NAME-compared`. It must be new.
        resume: go on in that folder.
        data: as of `simulate`.
        progress: as of `simulate`.
        changes: as of `simulate`.

    Raises:
        UsageError: as `simulate`.
        FedkdError: a run failed, and the others went on; `resume` takes it up again.
    """
    with settings.overriding(overrides, changes, data) as said:
        experiment = settings.experiment(config, said)
        settings.check_engine(experiment)
        folder = settings.run_folder(experiment, out, also="-compared")
        from fedkd.jobs import compare as comparing

        plan = comparing.plan(experiment, methods, seeds, answers)
        watch = partial(showing.one_of_several, progress=progress)
        done = comparing.compare(plan, folder, watch, resume=resume, audit=audit)
    if done.finished:
        from fedkd.reports import report as reports

        reports.write_comparison(done.folders, folder / "report.html")
    done.require_all()
    return Comparison(folder, tuple(map(Run, done.folders)))
