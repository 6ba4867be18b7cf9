"""`fedkd distil`: one party, a given or trained teacher, a smaller student."""

from pathlib import Path

from fedkd.cli.common import (
    Config,
    Override,
    ResumeStages,
    RunDir,
    import_beside,
    out,
    say_report,
)


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
