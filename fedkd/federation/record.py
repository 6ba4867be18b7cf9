"""One round in one line: what `rounds.jsonl` says."""

from typing import Any

from torch import Tensor

from fedkd.federation import report
from fedkd.federation.answers import Answers, Record
from fedkd.federation.prepare import PreparedExperiment
from fedkd.federation.wire import LedgerHead
from fedkd.learning import evaluate
from fedkd.methods.core.base import ServerContext


def describe(
    prepared: PreparedExperiment, ctx: ServerContext, answers: Answers, server: LedgerHead | None
) -> Record:
    """The round's record, but for its overall times; `server` is its own ledger's head."""
    test = prepared.in_students_view.data.test
    correct = evaluate.correct_by_class(ctx.student, test, prepared.data.classes)
    student = _score(correct, prepared.test_totals)
    if ctx.curve:
        student["curve"] = ctx.curve
    ensemble = ctx.ensemble_accuracy
    return {
        "round": ctx.round,
        "student": student,
        "teachers": _teachers(prepared, answers),
        "ensemble": None if ensemble is None else {"accuracy": ensemble},
        "losses": dict(ctx.losses),
        "bytes": {"up": answers.bytes_up, "down": answers.bytes_down},
        "seconds": {"phases": _phases(answers, ctx.clock.seconds)},
        "privacy": _privacy([server] if server else list(answers.ledger_heads.values())),
        "participants": list(answers.uploads),
        "capped": [
            {"client": client, "claimed": claimed, "weighed": weighed}
            for client, (claimed, weighed) in sorted(ctx.capped.items())
        ],
        "failures": [
            {"client": client, "reason": reason}
            for client, reason in sorted(answers.failures.items())
        ],
    }


def _score(correct: Tensor, totals: Tensor) -> dict[str, Any]:
    """Accuracy, over all samples and by class; null for a class without test samples."""
    pairs = zip(correct.tolist(), totals.tolist(), strict=True)
    return {
        "accuracy": int(correct.sum()) / int(totals.sum()),
        "by_class": [right / total if total else None for right, total in pairs],
    }


def _privacy(ledger_heads: list[LedgerHead]) -> dict[str, Any] | None:
    """The largest epsilon so far over those who spend; null where nothing is protected."""
    if not ledger_heads:
        return None
    most = max(ledger_heads, key=lambda at: at.epsilon)
    return {"epsilon": most.epsilon, "accountant": most.accountant}


def _teachers(prepared: PreparedExperiment, answers: Answers) -> dict[str, Any] | None:
    by_client = {}
    for client, upload in answers.uploads.items():
        correct = report.correct(upload)
        if correct is not None:
            model = str(prepared.experiment.client_model(client))
            by_client[str(client)] = {"model": model, **_score(correct, prepared.test_totals)}
    if not by_client:
        return None
    scores = [teacher["accuracy"] for teacher in by_client.values()]
    return {"mean_accuracy": sum(scores) / len(scores), "by_client": by_client}


def _phases(answers: Answers, server: dict[str, float]) -> dict[str, float]:
    """Seconds by phase: clients' summed over clients, the server's under `server: `."""
    phases: dict[str, float] = {}
    for upload in answers.uploads.values():
        for phase, spent in report.seconds(upload).items():
            phases[phase] = phases.get(phase, 0.0) + spent
    return phases | {f"server: {phase}": spent for phase, spent in server.items()}
