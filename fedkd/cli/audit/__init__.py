"""`fedkd audit`: what an experiment costs in privacy, and what an attacker really gets."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fedkd.cli.audit.claims import audit_allow, audit_ledger, audit_plan
from fedkd.cli.audit.found import say_found
from fedkd.cli.audit.poisoning import audit_poisoning
from fedkd.cli.audit.secret import audit_secret
from fedkd.cli.common import Config, Override, Run, beside
from fedkd.cli.completion import configs_or_runs

audit = typer.Typer(
    name="audit",
    help="What an experiment costs in privacy: planned, spent, and what an attacker really gets; "
    "and what hostile clients do to it.",
    epilog="Start with: fedkd audit plan private. Then docs/audit.md.",
    no_args_is_help=True,
)
audit.command("plan")(audit_plan)
audit.command("ledger")(audit_ledger)
audit.command("allow")(audit_allow)
audit.command("secret")(audit_secret)
audit.command("poisoning")(audit_poisoning)

Confidence = Annotated[
    float, typer.Option(help="Of all bounds together: how sure a VIOLATION is.", min=0.5, max=0.999)
]
Canaries = Annotated[
    int, typer.Option(help="The more, the more can be shown: see the ceiling.", min=10)
]
ConfigOrRun = Annotated[
    Path,
    typer.Argument(
        help="An experiment, or a run that this has recorded.",
        metavar="CONFIG|RUN",
        autocompletion=configs_or_runs,
    ),
]
AuditFolder = Annotated[
    Path | None,
    typer.Option("--out", help="The run folder of the audit.", show_default="runs/NAME-audit"),
]
Candidates = Annotated[
    int,
    typer.Option(help="Of each client; at most half of what it holds is taken.", min=20),
]
CandidateKind = Annotated[
    Literal["records", "mislabelled", "out-of-distribution"],
    typer.Option("--kind", help="A client's own records, such with a wrong label, or noise."),
]
References = Annotated[
    int,
    typer.Option(help="Reference models that the attacker trains for each client; even.", min=2),
]


@audit.command("mechanism")
def audit_mechanism(
    *,
    noise: Annotated[
        float, typer.Option("--noise-multiplier", help="Noise over sensitivity.", min=1e-3)
    ] = 1.0,
    draws: Annotated[int, typer.Option(help="Runs of each mechanism.", min=100)] = 20_000,
    delta: Annotated[float, typer.Option(help="Of the claim.", min=1e-12, max=0.5)] = 1e-5,
    confidence: Confidence = 0.95,
) -> None:
    """Measure the noise and the clip alone: the least epsilon that they can have.

    Runs each mechanism many times with and without one record that is far too loud, and holds what
    an attacker can tell against what is claimed. Exit status 3 if that is more.

    Example: fedkd audit mechanism --noise-multiplier 1.1
    """
    from fedkd.api.audits import audit as run

    how: dict[str, Any] = {"noise_multiplier": noise, "draws": draws, "delta": delta}
    say_found(run("mechanism", **how, confidence=confidence))


@audit.command("teacher")
def audit_teacher(
    config: Config,
    *,
    override: Override = None,
    canaries: Canaries = 2000,
    confidence: Confidence = 0.95,
) -> None:
    """Measure what an experiment's clients do to their records, through the very code that does it.

    Hides canaries among a client's records: records that move one coordinate of the gradient each,
    through the real loss, clip and noise, each included by the toss of a coin. An attacker who sees
    every noisy gradient says which. Also looks at what no statistic shows: Poisson sampling, the
    clip of records that pull against each other, noise on each parameter in each step, and where it
    comes from. Counts and sums that are sent are released many times, against their exact values.
    Few seconds; no ledger is touched. Exit status 3 on a VIOLATION.

    Example: fedkd audit teacher private
    """
    from fedkd.api.audits import audit as run

    how: dict[str, Any] = {"canaries": canaries, "confidence": confidence}
    say_found(run("teacher", config, override or (), **how, progress=beside))


@audit.command("exchange")
def audit_exchange(
    path: ConfigOrRun,
    *,
    override: Override = None,
    folder: AuditFolder = None,
    candidates: Candidates = 100,
    kind: CandidateKind = "records",
    references: References = 8,
    confidence: Confidence = 0.95,
) -> None:
    """Attack what clients send: what a server that is honest but curious learns from it.

    Runs the experiment with some records of each client as candidates: a coin says which of them it
    learns, and the server has all of them in the proxy set. The server keeps every message, then
    guesses who was learnt (loss threshold, LiRA, RMIA with reference models), which classes each
    client holds, and what its images look like. Also looks for fields that nobody paid for. Given a
    run that was recorded so, attacks it again. An attack that fails proves nothing: its verdict is
    NO POWER. Exit status 3 on a VIOLATION.

    Example: fedkd audit exchange overfitted --candidates 550
    """
    from fedkd.api.audits import audit as run

    how: dict[str, Any] = {"candidates": candidates, "kind": kind, "references": references}
    how |= {"confidence": confidence, "out": folder}
    say_found(run("exchange", path, override or (), **how, progress=beside))


@audit.command("student")
def audit_student(
    run: Run,
    *,
    references: References = 8,
    confidence: Confidence = 0.95,
) -> None:
    """Attack what is released: who was among the private records, by the student alone.

    And by the images of its generator, where the method has one. Needs the data that the run's
    config.toml names, to tell members from others. Of a run that 'fedkd audit exchange' made its
    candidates are asked about; of any other run the clients' records against test records, without
    a bound on epsilon. Exit status 3 on a VIOLATION.

    Example: fedkd audit student runs/demo
    """
    from fedkd.api.audits import audit as attack

    how: dict[str, Any] = {"references": references, "confidence": confidence}
    say_found(attack("student", run, **how, progress=beside))


@audit.command("report")
def audit_report(
    path: ConfigOrRun,
    *,
    override: Override = None,
    folder: AuditFolder = None,
    candidates: Candidates = 100,
    kind: CandidateKind = "records",
    references: References = 8,
    poisoned: Annotated[
        Path | None,
        typer.Option(
            "--poisoning", help="A folder of 'fedkd audit poisoning', for the page.", metavar="DIR"
        ),
    ] = None,
    confidence: Confidence = 0.95,
) -> None:
    """Audit everything, into one page that can be put before a data protection officer.

    The noise alone, the teachers' DP-SGD, the exchange, the student and its generator, with what
    the ledgers claim beside it: audit.html and audit.json in the run's folder. Exit status 3 on a
    VIOLATION, once the page is written.

    Example: fedkd audit report overfitted --candidates 550
    """
    from fedkd.api.audits import audit as run

    how: dict[str, Any] = {"candidates": candidates, "kind": kind, "references": references}
    how |= {"confidence": confidence, "out": folder, "poisoned": poisoned}
    say_found(run("report", path, override or (), **how, progress=beside))
