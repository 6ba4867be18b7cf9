"""`fedkd distil`: one party, a given or trained teacher, a smaller student."""

from fedkd.cli.common import (
    Config,
    Override,
    ResumeStages,
    RunDir,
    answer,
    beside,
    report_line,
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
    from fedkd.api.running import distil as run
    from fedkd.reports import tables

    done = run(config, override or (), out=folder, resume=resume, progress=beside)
    report = done.report.path
    value = {"run": done.path, "report": report, "summary": done.summary}
    answer(value, tables.distilled(done.summary), report_line(report))
