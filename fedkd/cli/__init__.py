"""The command `fedkd`: parse, call, print; nothing else.

Rooms are imported inside commands, so that `--help` does not wait for torch.
"""

import logging
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer
from rich.markup import escape

from fedkd import __version__
from fedkd.cli.audit import audit
from fedkd.cli.common import (
    Config,
    Override,
    Resume,
    ResumeStages,
    RunDir,
    Warnings,
    command_of,
    err,
    import_beside,
    out,
    run_folder,
    say,
    say_report,
    say_summary,
    watch,
)
from fedkd.cli.deploy import deploy
from fedkd.cli.listing import data, methods, tasks
from fedkd.cli.predict import predict
from fedkd.cli.live import watch as follow_run
from fedkd.errors import FedkdError, StorageError, UsageError

app = typer.Typer(
    name="fedkd",
    help="Federated and data-free knowledge distillation: parties who may not share data, and need "
    "not share a model, teach one good model together.",
    epilog="Start with: fedkd simulate demo",
    no_args_is_help=True,
    suggest_commands=False,  # click does
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # what stands in brackets, such as [data], is no markup
)
app.add_typer(deploy)
app.add_typer(audit)
WORKER_NAME = "fedkd-client"
"""The threads of the in-process grid, which is not imported for `--help`."""


def _print_version(value: bool) -> None:  # noqa: FBT001 - typer's
    if value:
        say(f"fedkd {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks, and what clients log.")
    ] = False,
    version: Annotated[  # noqa: ARG001 - its callback does it, before a command is missed
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    log = logging.getLogger("fedkd")
    # Opacus and absl give the root logger handlers of their own, which would print every traceback.
    log.propagate = debug
    log.handlers = [logging.NullHandler() if debug else Warnings()]
    if debug:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr)


@app.command()
def simulate(
    config: Config,
    *,
    override: Override = None,
    folder: RunDir = None,
    resume: Resume = False,
    replay: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="A run with clients.asynchronous, simulated or deployed: its clients answer in "
            "the order that they had there, and the student must be the same to the bit.",
        ),
    ] = None,
) -> None:
    """Simulate a federation on this machine.

    Writes a run folder: the resolved config, every round, the student, and report.html.
    """
    from fedkd.config import load
    from fedkd.jobs.simulate import simulate as run

    import_beside(config)
    experiment = load(config, override or ())
    path = run_folder(experiment, folder)
    with watch(experiment) as observer:
        summary = run(experiment, path, observer, resume=resume, replay=replay)
    say_summary(summary, path)
    if replay is not None:
        say(f"replayed: the student is that of {replay}, to the bit")


@app.command()
def distil(
    config: Config,
    *,
    override: Override = None,
    folder: RunDir = None,
    resume: ResumeStages = False,
) -> None:
    """Distil for one party: a given or trained teacher, a smaller student, any form and way.

    Writes a run folder: the resolved config, every epoch, the student, and report.html. Start with
    `fedkd distil distil`; docs/distil.md has all ways to learn and forms of knowledge.
    """
    from fedkd.config import load_distillation
    from fedkd.jobs.distil import distil as run
    from fedkd.reports import tables
    from fedkd.reports.bar import progress

    import_beside(config)
    distillation = load_distillation(config, override or ())
    path = folder or Path(distillation.output.folder) / distillation.name
    with progress(out) as notify:
        summary = run(distillation, path, notify, resume=resume)
    out.print(tables.distilled(summary))
    say_report(path / "report.html")


@app.command()
def compare(
    config: Config,
    *,
    methods: Annotated[
        str, typer.Option(help="Methods by name, with commas between, such as fedavg,dsfl.")
    ],
    seeds: Annotated[int, typer.Option(min=1, help="Seeds for each method.")] = 3,
    answers: Annotated[
        str,
        typer.Option(
            help="How answers are written: all of [exchange], with commas between, such as "
            "float16,int4,transform+delta.",
            show_default="as in the experiment",
        ),
    ] = "",
    override: Override = None,
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="The folder for all runs.", show_default="runs/NAME-compared"),
    ] = None,
    resume: Resume = False,
) -> None:
    """Run several methods, or forms of answers, on the same experiment and seeds, and compare.

    Prints one table with mean and standard deviation, and writes one report beside each run's own.
    """
    from fedkd.config import load
    from fedkd.jobs import compare as comparing

    import_beside(config)
    experiment = load(config, override or ())
    path = folder or Path(experiment.output.folder) / f"{experiment.name}-compared"
    names = [name.strip() for name in methods.split(",") if name.strip()]
    forms = [form.strip() for form in answers.split(",") if form.strip()]
    plan = comparing.plan(experiment, names, seeds, forms)
    folders = comparing.compare(plan, path, watch, resume=resume)
    _compare_runs(folders, path / "report.html")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", metavar="RUN...")],
    *,
    file: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Where a report on several runs goes.", show_default="comparison.html"
        ),
    ] = None,
) -> None:
    """Write the report of a run again, or one report on several runs."""
    from fedkd.reports import distil_report
    from fedkd.reports import report as reports
    from fedkd.runs.student import is_distillation

    if len(runs) > 1:
        _compare_runs(runs, file or Path("comparison.html"))
    elif file is None:
        write = distil_report.write if is_distillation(runs[0]) else reports.write
        say_report(write(runs[0]))
    else:
        raise UsageError(f"--out is for several runs: one run's report stands in {runs[0]}")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")],
    *,
    format: Annotated[Literal["onnx", "torchscript"], typer.Option(help="onnx or torchscript.")],
    file: Annotated[
        Path | None,
        typer.Option("--out", help="The file.", show_default="RUN/student.onnx or .pt"),
    ] = None,
) -> None:
    """Write a run's student for other programs, checked against the original."""
    from fedkd.jobs.export import export as write

    import_beside(run)
    done = write(run, format, file)
    none = f"none of the test set ({done.untested})"
    tests = f"{done.tests} of them of the test set" if done.tests else none
    say(
        f"agrees with the original on {done.inputs} inputs, {tests}, alone and in batches: logits "
        f"differ by at most {done.difference:.2g}"
    )
    if done.scaled:
        say(f"inputs: {done.scaled} columns scaled by inputs.scale in {run / 'summary.json'}")
    say(f"student: {done.path.resolve()}")


app.command()(predict)
app.command("watch")(follow_run)
app.command()(methods)
app.command()(tasks)
app.command()(data)


def main() -> NoReturn:
    """Run the command; an error that was foreseen is one line, and its own exit status."""
    try:
        command_of(app)(standalone_mode=True)
    except FedkdError as error:
        sys.exit(_say_error(str(error), error.exit_status))
    except OSError as error:
        # Of a file it is the caller's to mend, as a StorageError is; else something failed.
        status = StorageError.exit_status if error.filename else FedkdError.exit_status
        sys.exit(_say_error(f"{error.filename or 'file'}: {error.strerror or error}", status))
    sys.exit(0)


def script() -> NoReturn:
    """`main` as a process of its own, which a client that never returns cannot keep or crash."""
    status: str | int | None = 0
    try:
        main()
    except SystemExit as ended:
        status = ended.code
    if any(thread.name == WORKER_NAME for thread in threading.enumerate()):
        # Python would end around a client that computes on, and torch would abort the process.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1)
    sys.exit(status)


def _say_error(text: str, status: int) -> int:
    if "--debug" in sys.argv:
        err.print_exception()
    err.print("error:", text, style="red", markup=False, highlight=False, soft_wrap=True)
    return status


def _compare_runs(folders: Sequence[Path], file: Path) -> None:
    from fedkd.reports import report as reports
    from fedkd.reports import tables
    from fedkd.reports.comparison import comparison_table, differences
    from fedkd.runs.reading import read

    report = reports.write_comparison(folders, file)
    out.print(tables.comparison(comparison_table(folders)))
    if unlike := differences([read(folder) for folder in folders]):
        also = escape(", ".join(unlike))
        out.print(f"[bold]Not like for like:[/bold] the runs also differ in {also}.")
    say_report(report)
