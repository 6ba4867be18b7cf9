"""`fedkd distil`: one party, a given or trained teacher, a smaller student."""

from pathlib import Path

from fedkd.cli.common import (
    Config,
    Override,
    ResumeStages,
    RunDir,
    answer,
    import_beside,
    report_line,
    steps,
)


def distil(
    config: Config,
    *,
    override: Override = None,
    folder: RunDir = None,
    resume: ResumeStages = False,
) -> None:
    """Distil for one party: a given or trained teacher, a smaller student, any form and way.

    Writes a run folder: the resolved config, every epoch, the student, and report.html.
    docs/distil.md has all ways to learn and forms of knowledge.

    Example: fedkd distil distil --set knowledge.0.temperature=2
    """
    from fedkd.config import load_distillation
    from fedkd.jobs.distil import distil as run
    from fedkd.reports import tables

    import_beside(config)
    distillation = load_distillation(config, override or ())
    path = folder or Path(distillation.output.folder) / distillation.name
    with steps() as notify:
        summary = run(distillation, path, notify, resume=resume)
    report = path / "report.html"
    value = {"run": path, "report": report, "summary": summary}
    answer(value, tables.distilled(summary), report_line(report))
