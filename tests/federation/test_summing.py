"""The closed form from end to end: one release in the ledger, none the second time."""

import json

import pytest
import tiny

from fedkd.errors import BudgetError
from fedkd.federation.prepare import forecast
from fedkd.jobs.simulate import simulate
from fedkd.privacy import accountant
from fedkd.privacy.events import Gaussian

CLOSED = {
    "method": {"name": "analytic", "components": 6},
    "rounds": 1,
    "privacy.epsilon": 8.0,
}


def test_a_private_closed_form_is_paid_for_once(rows, tmp_path):
    experiment = tiny.experiment(rows, {**CLOSED, "privacy.ledger": str(tmp_path / "ledgers")})
    [term] = forecast(experiment).terms
    assert (term.what, term.mechanism, term.steps) == ("sums of features", "gaussian", 1)
    summary = simulate(experiment, tmp_path / "run", tiny.Quiet())
    spent, noise = summary["privacy"]["epsilon"], summary["privacy"]["noise_multiplier"]
    assert 7.9 < spent <= 8.0
    assert spent == pytest.approx(accountant.epsilon([Gaussian("sums of features", noise)], 1e-5))
    assert summary["privacy"]["accountant"] == "PLD"
    assert {each["field"] for each in summary["released"]} == {"features", "labels"}
    told = {each["provenance"] for each in summary["released"]}
    assert told == {f"release: sums of features, Gaussian noise {noise:.4g}"}
    assert summary["teachers"] is None
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "each client added noise to what it sent" in page
    with pytest.raises(BudgetError, match="its privacy budget does not allow the round"):
        simulate(experiment, tmp_path / "again", tiny.Quiet())


def test_private_steps_are_one_plan_of_as_many_releases_of_the_sum(rows, tmp_path):
    changes = {
        "method": {"name": "summed_steps", "records": 200, "precision": "float16"},
        "rounds": 2,
        "clients.count": 2,
        "privacy.epsilon": 8.0,
        "privacy.secure_aggregation": True,
        "privacy.ledger": str(tmp_path / "ledgers"),
    }
    experiment = tiny.experiment(rows, changes)
    [term] = forecast(experiment).terms
    what = "sum of gradients, summed over clients"
    assert (term.what, term.mechanism, term.steps) == (what, "gaussian", 2)
    summary = simulate(experiment, tmp_path / "run", tiny.Quiet())
    spent, noise = summary["privacy"]["epsilon"], summary["privacy"]["noise_multiplier"]
    assert 7.9 < spent <= 8.0
    assert spent == pytest.approx(accountant.epsilon([Gaussian(what, noise, steps=2)], 1e-5))
    told = {each["provenance"] for each in summary["released"]}
    # Beside it whom the sum is of, which the server says.
    assert told == {f"release: {what}, Gaussian noise {noise:.4g}", "public"}
    with pytest.raises(BudgetError, match="budget does not allow the round"):
        simulate(experiment, tmp_path / "again", tiny.Quiet())


def test_one_client_or_four_give_the_same_student(rows, tmp_path):
    students = []
    for clients in (1, 4):
        changes = {
            "method": {"name": "analytic", "components": 6},
            "rounds": 1,
            "clients.count": clients,
        }
        folder = tmp_path / str(clients)
        summary = simulate(tiny.experiment(rows, changes), folder, tiny.Quiet())
        assert "NO DP" in (folder / "report.html").read_text(encoding="utf-8")
        record = json.loads((folder / "rounds.jsonl").read_text(encoding="utf-8"))
        assert record["bytes"]["up"] > 0
        students.append(summary["student"]["accuracy"])
    assert students[0] == students[1] > 0.9
