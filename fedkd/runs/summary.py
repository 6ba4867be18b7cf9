"""`summary.json`: a run in one small table."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from fedkd.federation.answers import Record
from fedkd.federation.prepare import PreparedExperiment
from fedkd.methods.core import accounting
from fedkd.runs.student import Inputs


def summarise(
    prepared: PreparedExperiment,
    student: nn.Module,
    records: Sequence[Record],
    released: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """The figures that a run is compared by; accuracies are shares of 1.

    Args:
        prepared: the experiment, prepared.
        student: the student as it ended.
        records: every round's record.
        released: what left the clients, by field.
    """
    last, experiment = records[-1], prepared.experiment
    reached = [[*r["student"].get("curve", []), r["student"]["accuracy"]] for r in records]
    return {
        "name": experiment.name,
        "method": experiment.method.name,
        "dataset": prepared.data.name,
        "inputs": Inputs.of(prepared.in_students_view.data).model_dump(mode="json"),
        "seed": experiment.seed,
        "rounds": experiment.rounds,
        "clients": prepared.setting.clients,
        "student": {
            "accuracy": last["student"]["accuracy"],
            "best_accuracy": max(accuracy for values in reached for accuracy in values),
            "model": str(experiment.student.model),
            "parameters": sum(p.numel() for p in student.parameters()),
        },
        "teachers": _teachers(records),
        "ensemble": last["ensemble"],
        "bytes": {way: sum(r["bytes"][way] for r in records) for way in ("up", "down")},
        "seconds": sum(r["seconds"]["total"] for r in records),
        "failures": sum(len(r["failures"]) for r in records),
        "released": list(released),
        "privacy": _privacy(prepared, records),
    }


def _privacy(prepared: PreparedExperiment, records: Sequence[Record]) -> dict[str, Any]:
    """What was protected, and the largest epsilon over those who spent."""
    privacy = prepared.experiment.privacy
    allowed = accounting.budget(privacy)
    spent = [record["privacy"] for record in records if record["privacy"] is not None]
    securely = {"secure_aggregation": True} if privacy.secure_aggregation else {}
    if allowed is None or not spent:
        return {"unit": privacy.unit, **securely}
    most = max(spent, key=lambda each: each["epsilon"])
    return {
        "unit": privacy.unit,
        "epsilon": most["epsilon"],
        "delta": allowed.delta,
        "adjacency": allowed.adjacency,
        "accountant": most["accountant"],
        "budget": allowed.epsilon,
        "noise_multiplier": privacy.noise_multiplier,
        "signal_to_noise": None
        if privacy.unit == "record"
        else accounting.signal(prepared.method, prepared.setting).ratio,
        **securely,
    }


def _teachers(records: Sequence[Record]) -> dict[str, float] | None:
    """Each client's latest teacher: with partial participation the last round has not all."""
    latest: dict[str, float] = {}
    for record in records:
        if record["teachers"] is not None:
            by_client = record["teachers"]["by_client"].items()
            latest |= {client: teacher["accuracy"] for client, teacher in by_client}
    if not latest:
        return None
    scores = list(latest.values())
    return {"mean_accuracy": sum(scores) / len(scores), "best_accuracy": max(scores)}
