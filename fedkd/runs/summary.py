"""`summary.json`: a run in one small table."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from fedkd.federation.answers import Record
from fedkd.federation.world import World


def summarise(
    world: World,
    student: nn.Module,
    records: Sequence[Record],
    released: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """The figures that a run is compared by; accuracies are shares of 1.

    Args:
        world: the experiment, prepared.
        student: the student as it ended.
        records: every round's record.
        released: what left the clients, by field.
    """
    last, experiment = records[-1], world.experiment
    reached = [[*r["student"].get("curve", []), r["student"]["accuracy"]] for r in records]
    return {
        "name": experiment.name,
        "method": experiment.method.name,
        "dataset": world.data.name,
        "seed": experiment.seed,
        "rounds": experiment.rounds,
        "clients": world.setting.clients,
        "student": {
            "accuracy": last["student"]["accuracy"],
            "best_accuracy": max(accuracy for values in reached for accuracy in values),
            "model": str(experiment.student.model),
            "parameters": sum(p.numel() for p in student.parameters()),
        },
        "teachers": _teachers(last),
        "ensemble": last["ensemble"],
        "bytes": {way: sum(r["bytes"][way] for r in records) for way in ("up", "down")},
        "seconds": sum(r["seconds"]["total"] for r in records),
        "failures": sum(len(r["failures"]) for r in records),
        "released": list(released),
        "privacy": {"unit": experiment.privacy.unit},
    }


def _teachers(record: Record) -> dict[str, float] | None:
    teachers = record["teachers"]
    if teachers is None:
        return None
    best = max(teacher["accuracy"] for teacher in teachers["by_client"].values())
    return {"mean_accuracy": teachers["mean_accuracy"], "best_accuracy": best}
