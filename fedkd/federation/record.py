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
    data, numbers = prepared.in_students_view.data, prepared.setting.task.numbers
    student, by_stage, own = None, None, None
    if prepared.scoring.happens(ctx.round):
        with ctx.on_device(ctx.student):
            student, by_stage = _student(prepared, ctx), _stages(prepared, ctx)
            own = personal.describe(answers.uploads, numbers, ctx.student, data.held_out)
    return {
        "round": ctx.round,
        "student": student,
        "teachers": _teachers(prepared, ctx.round, answers),
        "ensemble": ctx.ensemble,
        **({} if own is None else {"personal": own}),
        **({} if by_stage is None else {"stages": by_stage}),
        "losses": dict(ctx.losses),
        "bytes": {"up": answers.bytes_up, "down": answers.bytes_down},
        "seconds": {"phases": _phases(answers, ctx.clock.seconds)},
        "privacy": _privacy(prepared, [server] if server else [*answers.ledger_heads.values()]),
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


def _student(prepared: PreparedExperiment, ctx: ServerContext) -> dict[str, Any]:
    """The student's scores, and on how many test records where these are not all."""
    test = prepared.in_students_view.scoring.records(ctx.round)
    figures = evaluate.score(ctx.student, test, prepared.setting.task.scores)
    curve = {"curve": ctx.curve} if ctx.curve else {}
    return {**figures, **curve, **_of(prepared, ctx.round)}


def _of(prepared: PreparedExperiment, round: int) -> dict[str, int]:
    """On how many test records the scores of a round are, of how many; nothing where on all."""
    scoring = prepared.scoring
    if scoring.whole(round):
        return {}
    return {"records": len(scoring.records(round)), "of": len(scoring.test)}


def _stages(prepared: PreparedExperiment, ctx: ServerContext) -> dict[str, Any] | None:
    """The round's stage, from 1, and the student's headline score on each stage's test records."""
    setting = prepared.setting
    if setting.stages is None:
        return None
    count, headline = len(setting.stages), setting.task.headline
    test = prepared.in_students_view.scoring.records(ctx.round)
    scores = evaluate.by_stage(ctx.student, test, count, headline)
    return {"stage": setting.stages.at(ctx.round) + 1, "scores": scores}


def _privacy(prepared: PreparedExperiment, ledger_heads: list[LedgerHead]) -> dict[str, Any] | None:
    """The largest epsilon so far over those who spend; null where nothing is protected.

    Then a ledger's head is of another run, or said by whoever likes to.
    """
    if prepared.experiment.privacy.unit == "none" or not ledger_heads:
        return None
    most = max(ledger_heads, key=lambda at: at.epsilon)
    return {"epsilon": most.epsilon, "accountant": most.accountant}


def _teachers(prepared: PreparedExperiment, round: int, answers: Answers) -> dict[str, Any] | None:
    task, by_client = prepared.setting.task, {}
    for client, upload in answers.uploads.items():
        asked = answers.asked.get(client, round)
        if (counted := report.tallies(upload, task.scores)) is not None:
            model = str(prepared.experiment.client_model(client))
            figures = evaluate.figures(counted, prepared.scoring.totals(asked), task.scores)
            by_client[str(client)] = {"model": model, **figures, **_of(prepared, asked)}
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
