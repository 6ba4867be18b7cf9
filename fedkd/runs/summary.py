"""`summary.json`: a run in one small table."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from fedkd.federation.answers import Record
from fedkd.federation.personal import averaged
from fedkd.federation.prepare import PreparedExperiment
from fedkd.learning import evaluate
from fedkd.methods.core import accounting
from fedkd.runs.continual import about, learned
from fedkd.runs.scores import shown_scores
from fedkd.runs.student import Inputs
from fedkd.tasks import Task, mean_of


def summarise(
    prepared: PreparedExperiment,
    student: nn.Module,
    records: Sequence[Record],
    released: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """The figures that a run is compared by; shares are of 1.

    Args:
        prepared: the experiment, prepared.
        student: the student as it ended.
        records: every round's record.
        released: what left the clients, by field.
    """
    last, experiment, task = records[-1], prepared.experiment, prepared.setting.task
    headline = task.headline
    scored = [r["student"] for r in records if r["student"] is not None]
    reached = [[*each.get("curve", []), each[headline.figure]] for each in scored]
    return {
        "name": experiment.name,
        **shown_scores(task),
        "method": experiment.method.name,
        "dataset": prepared.data.name,
        "inputs": Inputs.of(prepared.in_students_view.data).model_dump(mode="json"),
        "seed": experiment.seed,
        "rounds": experiment.rounds,
        "clients": prepared.setting.clients,
        "student": {
            headline.figure: last["student"][headline.figure],
            headline.at_best: headline.best(v for values in reached for v in values),
            **{score.figure: last["student"][score.figure] for score in task.numbers[1:]},
            "model": str(experiment.student.model),
            "parameters": sum(p.numel() for p in student.parameters()),
        },
        "teachers": _teachers(task, records),
        "ensemble": last["ensemble"],
        **_personal(task, records),
        **_continual(prepared, records),
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


def _personal(task: Task, records: Sequence[Record]) -> dict[str, Any]:
    """Each client's latest personal scores, under `personal`; nothing where there are none."""
    known = {client: one for client, one in _latest(records, "personal").items() if one is not None}
    return {"personal": averaged(task.numbers, known)} if known else {}


def _latest(records: Sequence[Record], key: str) -> dict[str, dict[str, Any] | None]:
    """What was found of each client in the last round that it took part in; None: nothing.

    With partial participation that need not be the run's last, and an earlier figure is of another
    model.
    """
    latest: dict[str, dict[str, Any] | None] = {}
    for record in records:
        found = (record.get(key) or {}).get("by_client", {})
        latest |= {client: found.get(client) for client in map(str, record["participants"])}
    return latest


def _continual(prepared: PreparedExperiment, records: Sequence[Record]) -> dict[str, Any]:
    """The student's scores stage by stage; nothing where data came in none."""
    seen = prepared.in_students_view
    stages, headline = seen.setting.stages, seen.setting.task.headline
    if stages is None:
        return {}
    # Of a stage the last round counts.
    found = [each["stages"] for each in records if "stages" in each]
    rows = {each["stage"]: each["scores"] for each in found}
    fresh = seen.setting.build(prepared.experiment.student.model, purpose="student")
    untrained = evaluate.by_stage(fresh, seen.data.test, len(stages), headline)
    return {"continual": about(stages) | learned(list(rows.values()), untrained, headline)}


def _teachers(task: Task, records: Sequence[Record]) -> dict[str, Any] | None:
    """Of the clients' latest teachers, without those that were scored on a part of the test set."""
    latest = _latest(records, "teachers")
    each = [one for one in latest.values() if one is not None and "records" not in one]
    if not each:
        return None
    headline, *others = task.numbers
    figures = {s.figure: [one[s.figure] for one in each] for s in task.numbers}
    return {
        **({} if len(each) == len(latest) else {"scored": len(each)}),
        headline.mean: mean_of(figures[headline.figure]),
        headline.at_best: headline.best(figures[headline.figure]),
        **{score.mean: mean_of(figures[score.figure]) for score in others},
    }
