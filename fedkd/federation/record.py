"""One round in one line: what `rounds.jsonl` says."""

from collections.abc import Mapping
from typing import Any

from fedkd.federation import personal, report
from fedkd.federation.answers import Answers, Record
from fedkd.federation.prepare import PreparedExperiment
from fedkd.federation.wire import LedgerHead
from fedkd.learning import evaluate
from fedkd.methods.core.base import ServerContext
from fedkd.tasks import mean_of


def describe(
    prepared: PreparedExperiment, ctx: ServerContext, answers: Answers, server: LedgerHead | None
) -> Record:
    """The round's record, but for its overall times; `server` is its own ledger's head."""
    data, task = prepared.in_students_view.data, prepared.setting.task
    with ctx.on_device(ctx.student):
        student = evaluate.score(ctx.student, data.test, task.scores)
        by_stage = _stages(prepared, ctx)
        own = personal.describe(answers.uploads, task.numbers, ctx.student, data.held_out)
    if ctx.curve:
        student["curve"] = ctx.curve
    return {
        "round": ctx.round,
        "student": student,
        "teachers": _teachers(prepared, answers),
        "ensemble": ctx.ensemble,
        **({} if own is None else {"personal": own}),
        **by_stage,
        "losses": dict(ctx.losses),
        "bytes": {"up": answers.bytes_up, "down": answers.bytes_down},
        "seconds": {"phases": _phases(answers, ctx.clock.seconds)},
        "privacy": _privacy([server] if server else list(answers.ledger_heads.values())),
        "participants": list(answers.uploads),
        "capped": [
            {"client": client, "claimed": claimed, "weighed": weighed}
            for client, (claimed, weighed) in sorted(ctx.capped.items())
        ],
        **_robust(ctx),
        "failures": [
            {"client": client, "reason": reason}
            for client, reason in sorted(answers.failures.items())
        ],
    }


def _robust(ctx: ServerContext) -> dict[str, Any]:
    """What was found of a round's clients, and how far from the rest each was under a rule."""
    found = ctx.screened
    if found is None and not ctx.apart:
        return {}
    return {
        "robust": {
            "agreement": {} if found is None else _by_name(found.agreement),
            "contradiction": {} if found is None else _by_name(found.contradiction),
            "moves": {} if found is None else _by_name(found.moves),
            "alone": {} if found is None else _by_name(found.alone),
            "left_out": [] if found is None else list(found.left_out),
            "drawn_nearer": {} if found is None else _by_name(found.drawn_nearer),
            **({"unheard": _by_name(ctx.unheard)} if ctx.unheard else {}),
            **({"apart": _by_name(ctx.apart)} if ctx.apart else {}),
        }
    }


def _by_name(found: Mapping[int, float]) -> dict[str, float]:
    return {str(client): number for client, number in found.items()}


def _stages(prepared: PreparedExperiment, ctx: ServerContext) -> dict[str, Any]:
    """The round's stage, from 1, and the student's headline score on each stage's test records."""
    setting, test = prepared.setting, prepared.in_students_view.data.test
    if setting.stages is None:
        return {}
    count, headline = len(setting.stages), setting.task.headline
    scores = evaluate.by_stage(ctx.student, test, count, headline)
    return {"stages": {"stage": setting.stages.at(ctx.round) + 1, "scores": scores}}


def _privacy(ledger_heads: list[LedgerHead]) -> dict[str, Any] | None:
    """The largest epsilon so far over those who spend; null where nothing is protected."""
    if not ledger_heads:
        return None
    most = max(ledger_heads, key=lambda at: at.epsilon)
    return {"epsilon": most.epsilon, "accountant": most.accountant}


def _teachers(prepared: PreparedExperiment, answers: Answers) -> dict[str, Any] | None:
    task, by_client = prepared.setting.task, {}
    for client, upload in answers.uploads.items():
        if (counted := report.tallies(upload, task.scores)) is not None:
            model = str(prepared.experiment.client_model(client))
            figures = evaluate.figures(counted, prepared.test_totals, task.scores)
            by_client[str(client)] = {"model": model, **figures}
    if not by_client:
        return None
    means = {
        score.mean: mean_of([each[score.figure] for each in by_client.values()])
        for score in task.numbers
    }
    return {**means, "by_client": by_client}


def _phases(answers: Answers, server: dict[str, float]) -> dict[str, float]:
    """Seconds by phase: clients' summed over clients, the server's under `server: `."""
    phases: dict[str, float] = {}
    for upload in answers.uploads.values():
        for phase, spent in report.seconds(upload).items():
            phases[phase] = phases.get(phase, 0.0) + spent
    return phases | {f"server: {phase}": spent for phase, spent in server.items()}
