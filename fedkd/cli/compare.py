"""`fedkd compare` and `fedkd report`: several runs side by side, and a run's report again."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from fedkd.cli.common import (
    Config,
    Override,
    Resume,
    answer,
    import_beside,
    report_line,
)
from fedkd.cli.completion import methods as method_names
from fedkd.cli.completion import runs as run_folders
from fedkd.cli.sweep import watched
from fedkd.errors import UsageError


def compare(
    config: Config,
    *,
    methods: Annotated[
        str,
        typer.Option(
            help="Methods by name, with commas between, such as fedavg,dsfl. fedmd+epsilon=8 is "
            "one under these keys of [privacy], with + between.",
            autocompletion=method_names,
        ),
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
    audit: Annotated[
        bool,
        typer.Option(
            "--audit",
            help="Attack each run too: its experiment runs once more with candidates, and LiRA "
            "asks what clients sent, and the student, who was among the private records.",
        ),
    ] = False,
    override: Override = None,
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="The folder for all runs.", show_default="runs/NAME-compared"),
    ] = None,
    resume: Resume = False,
) -> None:
    """Run several methods, or forms of answers, on the same experiment and seeds, and compare.

    Prints one table with mean and standard deviation, and writes one report beside each run's own.
    Clients' own models are in it where clients.test_share measures them, and epsilon where it is
    spent.

    Example: fedkd compare one_shot_equal --methods fedavg,dense --seeds 3
    """
    from fedkd.config import load
    from fedkd.jobs import compare as comparing

    import_beside(config)
    experiment = load(config, override or ())
    path = folder or Path(experiment.output.folder) / f"{experiment.name}-compared"
    names = [name.strip() for name in methods.split(",") if name.strip()]
    forms = [form.strip() for form in answers.split(",") if form.strip()]
    plan = comparing.plan(experiment, names, seeds, forms)
    done = comparing.compare(plan, path, watched, resume=resume, audit=audit)
    if done.finished:
        _compare_runs(done.folders, path / "report.html", "html")
    done.require_all()


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run folders.", metavar="RUN...", autocompletion=run_folders),
    ],
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
    """Write the report of a run again, or one report on several runs.

    Example: fedkd report runs/demo runs/dsfl --out both.html
    """
    from fedkd.reports import distil_report
    from fedkd.reports import report as reports
    from fedkd.runs.student import is_distillation

    if len(runs) > 1:
        _compare_runs(runs, file or Path(f"comparison.{form}"), form)
        return
    if file is not None and form == "html":
        raise UsageError(
            f"--out is for several runs, or with --format md: one run's page stands in {runs[0]}"
        )
    of = distil_report if is_distillation(runs[0]) else reports
    markdown = file or runs[0] / "report.md"
    written = of.write(runs[0]) if form == "html" else of.write_markdown(runs[0], markdown)
    answer({"report": written}, report_line(written))


def _compare_runs(folders: Sequence[Path], file: Path, form: Literal["html", "md"]) -> None:
    from fedkd.reports import report as reports
    from fedkd.reports import tables
    from fedkd.reports.comparison import comparison_table, differences
    from fedkd.runs.reading import read

    write = reports.write_comparison if form == "html" else reports.write_comparison_markdown
    report = write(folders, file)
    rows = comparison_table(folders)
    unlike = differences([read(folder) for folder in folders])
    also = f"the runs also differ in {escape(', '.join(unlike))}."
    value = {
        "report": report,
        "runs": folders,
        "score": rows[0].score.name,
        "methods": [{k: v for k, v in asdict(row).items() if k != "score"} for row in rows],
        "differences": unlike,
    }
    warning = [f"[bold]Not like for like:[/bold] {also}"] if unlike else []
    answer(value, tables.comparison(rows), *warning, report_line(report))
