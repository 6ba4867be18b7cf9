"""`fedkd compare` and `fedkd report`: several runs side by side, and a run's report again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from fedkd.cli.common import Config, Override, Resume, import_beside, out, say_report
from fedkd.cli.sweep import watched
from fedkd.errors import UsageError


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
    done = comparing.compare(plan, path, watched, resume=resume)
    if done.finished:
        _compare_runs(done.folders, path / "report.html", "html")
    done.require_all()


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", metavar="RUN...")],
    *,
    form: Annotated[
        Literal["html", "md"],
        typer.Option(
            "--format",
            help="A page, or GitHub Markdown with its charts as SVG files in a folder beside it, "
            "such as for a paper's appendix.",
        ),
    ] = "html",
    file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Where a report on several runs, or one in Markdown, goes.",
            show_default="comparison.html or .md, RUN/report.md",
        ),
    ] = None,
) -> None:
    """Write the report of a run again, or one report on several runs."""
    from fedkd.reports import distil_report
    from fedkd.reports import report as reports
    from fedkd.runs.student import is_distillation

    if len(runs) > 1:
        _compare_runs(runs, file or Path(f"comparison.{form}"), form)
        return
    of = distil_report if is_distillation(runs[0]) else reports
    if form == "md":
        say_report(of.write_markdown(runs[0], file or runs[0] / "report.md"))
    elif file is None:
        say_report(of.write(runs[0]))
    else:
        raise UsageError(
            f"--out is for several runs, or with --format md: one run's page stands in {runs[0]}"
        )


def _compare_runs(folders: Sequence[Path], file: Path, form: Literal["html", "md"]) -> None:
    from fedkd.reports import report as reports
    from fedkd.reports import tables
    from fedkd.reports.comparison import comparison_table, differences
    from fedkd.runs.reading import read

    write = reports.write_comparison if form == "html" else reports.write_comparison_markdown
    report = write(folders, file)
    out.print(tables.comparison(comparison_table(folders)))
    if unlike := differences([read(folder) for folder in folders]):
        also = escape(", ".join(unlike))
        out.print(f"[bold]Not like for like:[/bold] the runs also differ in {also}.")
    say_report(report)
