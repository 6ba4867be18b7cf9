"""The command `fedkd`: parse, call, print; nothing else.

Rooms are imported inside commands, so that `--help` does not wait for torch.
"""

import json
import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from fedkd import __version__
from fedkd.errors import BudgetError, FedkdError, LedgerError, UsageError

if TYPE_CHECKING:
    from fedkd.config import Experiment
    from fedkd.federation.answers import Observer
    from fedkd.runs.audits import Audited

app = typer.Typer(
    name="fedkd",
    help="Federated and data-free knowledge distillation: parties who may not share data, and need "
    "not share a model, teach one good model together.",
    epilog="Start with: fedkd simulate configs/demo.toml",
    no_args_is_help=True,
    suggest_commands=False,  # click does
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
audit = typer.Typer(
    name="audit",
    help="What an experiment costs in privacy: planned, spent, and what an attacker really gets.",
    no_args_is_help=True,
)
app.add_typer(audit)
out, err = Console(), Console(stderr=True)
WORKER_NAME = "fedkd-client"
"""The threads of the in-process grid, which is not imported for `--help`."""

Config = Annotated[Path, typer.Argument(help="The experiment, a TOML file.", metavar="CONFIG")]
Override = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one value, such as method.name=dsfl; may be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]
Confidence = Annotated[
    float, typer.Option(help="Of all bounds together: how sure a VIOLATION is.", min=0.5, max=0.999)
]
Canaries = Annotated[
    int, typer.Option(help="The more, the more can be shown: see the ceiling.", min=10)
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on after the last finished round, to the same bits but for DP noise."
    ),
]


def _print_version(value: bool) -> None:  # noqa: FBT001 - typer's
    if value:
        out.print(f"fedkd {__version__}", highlight=False)
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
    own = logging.getLogger("fedkd")
    # Opacus and absl give the root logger handlers of their own, which would print every traceback.
    own.addHandler(logging.NullHandler())
    own.propagate = debug
    if debug:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr)


@app.command()
def simulate(
    config: Config,
    *,
    override: Override = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="The run folder.", show_default="runs/NAME")
    ] = None,
    resume: Resume = False,
) -> None:
    """Simulate a federation on this machine.

    Writes a run folder: the resolved config, every round, the student, and report.html.
    """
    from fedkd.config import load
    from fedkd.runs import tables
    from fedkd.runs.simulate import simulate as run

    experiment = load(config, override or ())
    path = folder or Path(experiment.output.folder) / experiment.name
    with _watch(experiment) as observer:
        summary = run(experiment, path, observer, resume=resume)
    out.print(tables.summary(summary))
    _say_report(path / "report.html")


@app.command()
def compare(
    config: Config,
    *,
    methods: Annotated[
        str, typer.Option(help="Methods by name, with commas between: fedavg,fedmd,dense.")
    ],
    seeds: Annotated[int, typer.Option(min=1, help="Seeds for each method.")] = 3,
    override: Override = None,
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="The folder for all runs.", show_default="runs/NAME-compared"),
    ] = None,
    resume: Resume = False,
) -> None:
    """Run several methods on the same experiment and seeds, and compare.

    Prints one table with mean and standard deviation, and writes one report beside each run's own.
    """
    from fedkd.config import load
    from fedkd.runs import compare as comparing

    experiment = load(config, override or ())
    path = folder or Path(experiment.output.folder) / f"{experiment.name}-compared"
    names = [name.strip() for name in methods.split(",") if name.strip()]
    plan = comparing.plan(experiment, names, seeds)
    folders = comparing.compare(plan, path, _watch, resume=resume)
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
    from fedkd.runs import report as reports

    if len(runs) > 1:
        _compare_runs(runs, file or Path("comparison.html"))
    elif file is None:
        _say_report(reports.write(runs[0]))
    else:
        raise UsageError(f"--out is for several runs: one run's report stands in {runs[0]}")


@app.command()
def methods(*, as_json: AsJson = False) -> None:
    """List the federated methods: what each sends, needs and returns."""
    from dataclasses import asdict

    from fedkd.methods import BUILT_IN, find

    cards = {name: asdict(find(name).card) for name in BUILT_IN}
    if as_json:
        typer.echo(json.dumps(cards, indent=2))
        return
    for name, card in cards.items():
        out.print(f"[bold]{name}[/bold]  [dim]{card['paper']}[/dim]")
        for heading in ("sends", "needs", "returns"):
            out.print(f"  {heading:<8}{card[heading]}", highlight=False)
        out.print(f"  models  {'may differ' if card['unlike_models'] else 'must be equal'}")
        out.print(f"  privacy {_units(card)}\n", highlight=False)


def _units(card: dict[str, Any]) -> str:
    """The units of [privacy] that a method runs under."""
    if card["no_dp"]:
        return f"none: {card['no_dp']}"
    units = ["record", *(["client-votes", "client-logits"] if card["client_units"] else [])]
    counts = "; pays for its " + " and ".join(card["counts"]) if card["counts"] else ""
    return ", ".join(units) + counts


@app.command()
def data(*, as_json: AsJson = False) -> None:
    """List the data sets known by name, and where each was looked for: $FEDKD_DATA first."""
    from fedkd.data import NAMES, locations

    places = {name: locations(name) for name in NAMES}
    if as_json:
        found = {
            name: [{"folder": folder, "complete": here} for folder, here in looked]
            for name, looked in places.items()
        }
        typer.echo(json.dumps(found, indent=2))
        return
    for name, looked in places.items():
        here = any(complete for _, complete in looked)
        out.print(f"[bold]{name}[/bold]  {'here' if here else 'not here: fetched on first use'}")
        for folder, complete in looked:
            mark = "[green]found[/green]" if complete else "[dim]no   [/dim]"
            out.print(f"  {mark}  {folder}", highlight=False, soft_wrap=True)
    out.print("\nYour own: data.name is the path of an .npz or a .csv file, see docs/data.md.")


@audit.command("plan")
def audit_plan(
    config: Config,
    *,
    override: Override = None,
    ledger: Annotated[
        Path | None,
        typer.Option(help="A ledger: what was spent before counts too.", metavar="FILE"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what an experiment will cost in privacy, term by term, before anything runs.

    Prints epsilon by PLD and by RDP, and the noise that the budget needs. Exit status 4 if the plan
    is over its budget.
    """
    from dataclasses import asdict

    from fedkd.config import load
    from fedkd.runs import ledgers, tables

    forecast = ledgers.forecast(load(config, override or ()), ledger)
    if as_json:
        typer.echo(json.dumps(asdict(forecast), indent=2))
    else:
        out.print(tables.forecast(forecast))
    ledgers.check(forecast)
    if forecast.epsilon > forecast.budget:
        raise BudgetError(
            f"the plan costs epsilon {forecast.epsilon:.4g} of a budget of {forecast.budget:g}: "
            f"raise the noise multiplier to {forecast.noise_needed:.4g}, or plan fewer rounds"
        )


@audit.command("ledger")
def audit_ledger(
    path: Annotated[
        Path,
        typer.Argument(help="A ledger, a folder of ledgers, or a run's folder.", metavar="PATH"),
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Say what ledgers hold: what was spent of each data set, for what, and what is left.

    Exit status 4 if a ledger was changed, cut or rolled back.
    """
    from fedkd.runs import ledgers, tables

    told = ledgers.read(path)
    if as_json:
        typer.echo(json.dumps(ledgers.as_dict(told), indent=2))
    else:
        for each in told:
            out.print(tables.ledger(each))
    if broken := [each for each in told if each.statement.chain != "intact"]:
        first = broken[0]
        raise LedgerError(f"ledger {str(first.path)!r}: {first.statement.chain}")


@audit.command("allow")
def audit_allow(
    ledger: Annotated[Path, typer.Argument(help="The ledger's file.", exists=True, dir_okay=False)],
    epsilon: Annotated[float, typer.Argument(help="The most that each account may spend.")],
) -> None:
    """Let a ledger's data sets spend more, or less. For the owner of the data alone.

    Until then the budget that a data set was first used with is the most that its ledger allows,
    whatever budget a later experiment names.
    """
    from fedkd.runs import ledgers

    ledgers.allow(ledger, epsilon)
    out.print(f"{ledger}: epsilon {epsilon:g} is allowed from now on", highlight=False)


@audit.command("mechanism")
def audit_mechanism(
    *,
    noise: Annotated[
        float, typer.Option("--noise-multiplier", help="Noise over sensitivity.", min=1e-3)
    ] = 1.0,
    draws: Annotated[int, typer.Option(help="Runs of each mechanism.", min=100)] = 20_000,
    delta: Annotated[float, typer.Option(help="Of the claim.", min=1e-12, max=0.5)] = 1e-5,
    confidence: Confidence = 0.95,
    as_json: AsJson = False,
) -> None:
    """Measure the noise and the clip alone: the least epsilon that they can have.

    Runs each mechanism many times with and without one record that is far too loud, and holds what
    an attacker can tell against what is claimed. Exit status 3 if that is more.
    """
    from fedkd.runs import audits

    _report_audit(
        audits.audit_mechanism(
            noise_multiplier=noise, draws=draws, delta=delta, confidence=confidence
        ),
        as_json=as_json,
    )


@audit.command("teacher")
def audit_teacher(
    config: Config,
    *,
    override: Override = None,
    canaries: Canaries = 1000,
    confidence: Confidence = 0.95,
    as_json: AsJson = False,
) -> None:
    """Measure DP-SGD as an experiment configures it, through the very code that trains.

    Hides canaries among a client's records: records that move one coordinate of the gradient each,
    through the real loss, clip and noise, each included by the toss of a coin. An attacker who sees
    every noisy gradient says which. Also looks at what no statistic shows: Poisson sampling, noise
    after the clip, once a step, from no seed. Few seconds; no ledger is touched. Exit status 3 on a
    VIOLATION.
    """
    from fedkd.config import load
    from fedkd.runs import audits
    from fedkd.runs.progress import progress

    experiment = load(config, override or ())
    with progress(out) as notify:
        found = audits.audit_teacher(experiment, notify, canaries=canaries, confidence=confidence)
    _report_audit(found, as_json=as_json)


def _report_audit(found: "Audited", *, as_json: bool) -> None:
    """Print what an audit found; a violation is an error, once all of it is said."""
    from fedkd.audit.verdicts import raise_on_violation
    from fedkd.runs import findings

    if as_json:
        typer.echo(json.dumps(findings.as_json(found), indent=2, allow_nan=False))
    else:
        out.print(findings.tables(found))
    raise_on_violation([*found.verdicts, *found.checks])


def main() -> NoReturn:
    """Run the command; an error that was foreseen is one line, and its own exit status."""
    try:
        app(standalone_mode=True)
    except FedkdError as error:
        sys.exit(_say_error(str(error), error.exit_status))
    except OSError as error:
        sys.exit(_say_error(f"{error.filename or 'file'}: {error.strerror or error}", 1))
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


@contextmanager
def _watch(experiment: "Experiment") -> "Iterator[Observer]":
    from fedkd.runs.display import Display

    title = f"{experiment.name}: {experiment.method.name}, seed {experiment.seed}"
    with Display(out, title=title, rounds=experiment.rounds) as display:
        yield display


def _compare_runs(folders: Sequence[Path], file: Path) -> None:
    from fedkd.runs import report as reports
    from fedkd.runs import tables
    from fedkd.runs.comparison import comparison_table, differences
    from fedkd.runs.reading import read

    report = reports.write_comparison(folders, file)
    out.print(tables.comparison(comparison_table(folders)))
    if unlike := differences([read(folder) for folder in folders]):
        out.print(f"[bold]Not like for like:[/bold] the runs also differ in {', '.join(unlike)}.")
    _say_report(report)


def _say_report(path: Path) -> None:
    out.print("report:", str(path.resolve()), markup=False, highlight=False, soft_wrap=True)
