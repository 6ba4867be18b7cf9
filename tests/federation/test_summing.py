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
