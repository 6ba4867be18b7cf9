"""All steps of a method of sums audited from within: the claim holds, and a weaker one is found."""

import faults
import pytest
import tiny

from fedkd.jobs.audit import steps
from fedkd.jobs.audit.teachers import audit_teacher
from fedkd.methods.core import sums
from fedkd.privacy import mechanisms

STUDENT = {"name": "mlp", "hidden": [16]}


def audited(rows, *, canaries=400, **changes):
    """What comes of four steps, at epsilon 8."""
    own = {
        "rounds": 4,
        "privacy.clip": 0.5,
        "privacy.epsilon": 8.0,
        "method": {"name": "summed_steps", "records": 240, "precision": "float16"},
        "student.model": STUDENT,
        **changes,
    }
    found = audit_teacher(tiny.experiment(rows, own), lambda *_: None, canaries=canaries)
    return found.verdicts[0], {each.what: each.outcome for each in found.checks}


@pytest.mark.parametrize("securely", [True, False])
def test_nearly_all_that_is_claimed_is_measured_and_no_more(rows, *, securely):
    verdict, checks = audited(rows, **{"privacy.secure_aggregation": securely})
    assert verdict.outcome == "CONSISTENT"
    assert verdict.claim.epsilon == pytest.approx(8.0, rel=1e-3)
    assert verdict.epsilon > 0.8 * verdict.claim.epsilon
    assert set(checks) > {"steps paid for", "noise of each step", "noise drawn anew in each step"}
    assert set(checks.values()) == {"CONSISTENT"}


def test_half_the_noise_is_a_violation_in_the_sum_of_masked_parts_too(rows, monkeypatch):
    monkeypatch.setattr(mechanisms, "gaussian", faults.weaker(1 / 2))
    verdict, checks = audited(rows, **{"privacy.secure_aggregation": True})
    assert verdict.outcome == "VIOLATION"
    assert checks["noise of each step"] == "VIOLATION"


def test_a_clip_that_is_skipped_is_a_violation(rows, monkeypatch):
    monkeypatch.setattr(mechanisms, "clip", lambda parts, _: parts)
    assert audited(rows)[0].outcome == "VIOLATION"


@pytest.mark.parametrize(
    ("where", "name", "fault", "what"),
    [
        (sums, "NoiseSource", faults.repeated, "noise drawn anew in each step"),
        (mechanisms, "gaussian", None, "noise of each step"),
        (steps._Counted, "spend", lambda *_, **__: None, "steps paid for"),
    ],
    ids=["one noise for all", "none from the last step on", "unpaid"],
)
def test_what_no_canary_shows_is_looked_at(rows, monkeypatch, where, name, fault, what):
    if name == "spend":
        paid = where.spend

        def once(account, event, **how):
            if not account.spent:
                paid(account, event, **how)

        fault = once
    monkeypatch.setattr(where, name, fault or faults.BareAtLast(3))
    assert audited(rows, canaries=100)[1][what] == "VIOLATION"
