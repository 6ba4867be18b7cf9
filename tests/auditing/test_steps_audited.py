"""All steps of a method of sums audited from within: the claim holds, and a weaker one is found."""

import itertools

import faults
import pytest
import tiny
import torch

from fedkd.exchange.masking import fixed_point
from fedkd.exchange.masking.protocol import Sharing
from fedkd.federation.prepare import prepare
from fedkd.jobs.audit import masked, steps
from fedkd.jobs.audit.releases import check_releases
from fedkd.jobs.audit.teachers import audit_teacher
from fedkd.methods.core import sums
from fedkd.privacy import mechanisms

STUDENT = {"name": "mlp", "hidden": [16]}


def experiment(rows, **changes):
    """Four steps, at epsilon 8."""
    own = {
        "rounds": 4,
        "privacy.clip": 0.5,
        "privacy.epsilon": 8.0,
        "method": {"name": "summed_steps", "records": 240, "precision": "float16"},
        "student.model": STUDENT,
        **changes,
    }
    return tiny.experiment(rows, own)


def audited(rows, *, canaries=400, **changes):
    """What comes of them."""
    made = experiment(rows, **changes)
    found = audit_teacher(made, lambda *_: None, canaries=canaries)
    return found.verdicts[0], {each.what: each.outcome for each in found.checks}


@pytest.mark.parametrize("securely", [True, False])
def test_nearly_all_that_is_claimed_is_measured_and_no_more(rows, *, securely):
    verdict, checks = audited(rows, **{"privacy.secure_aggregation": securely})
    assert verdict.outcome == "CONSISTENT"
    assert verdict.claim.epsilon == pytest.approx(8.0, rel=1e-3)
    assert verdict.epsilon > 0.8 * verdict.claim.epsilon
    assert ("parts under masks" in checks) == securely
    looks = {"steps paid for", "noise of each step", "noise of all steps together"}
    looks |= {
        "sum under the noise",
        "shape of the noise",
        "noise of each feature",
        "noise drawn anew in each step",
    }
    assert set(checks) > looks
    assert set(checks.values()) == {"CONSISTENT"}


def test_half_the_noise_is_a_violation_in_the_sum_of_masked_parts_too(rows, monkeypatch):
    monkeypatch.setattr(mechanisms, "gaussian", faults.weaker(1 / 2))
    verdict, checks = audited(rows, **{"privacy.secure_aggregation": True})
    assert verdict.outcome == "VIOLATION"
    assert checks["noise of each step"] == "VIOLATION"


def test_a_clip_that_is_skipped_is_a_violation(rows, monkeypatch):
    monkeypatch.setattr(mechanisms, "clip", lambda parts, _: parts)
    assert audited(rows)[0].outcome == "VIOLATION"


@pytest.fixture(scope="module")
def prepared(rows):
    return prepare(experiment(rows))


def once(account, event, **_):
    if not account.spent:
        account.spent.append(event)


def halves(noise):
    half = len(noise) // 2
    return torch.cat([noise[:half], noise[:half], noise[2 * half :]])


def beside_records(drawn, call):
    """Features and the constant have none; canaries' rows have theirs."""
    bare = drawn[call].clone()
    if call == 3:
        bare[:16], bare[-1] = 0.0, 0.0
    return bare


def uniform(noise):
    return float(noise.std()) * 12**0.5 * (torch.rand_like(noise) - 0.5)


def largest_clipped():
    """By the largest number in place of the length."""
    calls, real = itertools.count(), mechanisms.clip

    def clip(rows, norm):
        if next(calls) == 0:
            return real(rows, norm)
        peaks = rows.abs().amax(dim=1, keepdim=True)
        return rows * (norm / peaks).clamp(max=1)

    return clip


SHARED = {
    "the last is the first's": lambda noise, call: noise[0] if call == 3 else noise[call],
    "one half is the other's": lambda noise, call: halves(noise[call]),
    "records' rows are bare at last": beside_records,
    "uniform": lambda noise, call: uniform(noise[call]),
}


@pytest.mark.parametrize(
    ("where", "attribute", "fault", "canaries", "what"),
    [
        (sums, "NoiseSource", faults.repeated, 60, "noise drawn anew in each step"),
        (mechanisms, "gaussian", "the last is the first's", 60, "noise drawn anew in each step"),
        (mechanisms, "gaussian", "one half is the other's", 60, "noise of each feature"),
        (mechanisms, "gaussian", faults.BareAtLast(3), 60, "noise of each step"),
        (mechanisms, "gaussian", "records' rows are bare at last", 60, "noise of each step"),
        (mechanisms, "gaussian", "uniform", 60, "shape of the noise"),
        (mechanisms, "gaussian", faults.weaker(0.96), 400, "noise of all steps together"),
        (mechanisms, "clip", largest_clipped(), 400, "sum under the noise"),
        (steps._Counted, "spend", once, 60, "steps paid for"),
    ],
    ids=["one noise for all", "last first", "halves", "none in the last step", "none on records",
         "uniform", "4% too little", "largest number clipped", "unpaid"],
)  # fmt: skip
def test_what_no_canary_shows_is_looked_at(
    prepared, monkeypatch, where, attribute, fault, canaries, what
):
    planted = faults.Noise(SHARED[fault]) if isinstance(fault, str) else fault
    monkeypatch.setattr(where, attribute, planted)
    found = steps.audit_steps(prepared, canaries=canaries, confidence=0.95)
    assert {each.what: each.outcome for each in found.checks}[what] == "VIOLATION"


@pytest.mark.parametrize("fault", ["", "a mask on half", "no mask at all", "even numbers alone"])
def test_parts_that_masks_do_not_hide_or_change_are_found(rows, monkeypatch, fault):
    hidden = {"privacy.secure_aggregation": True, "clients.quorum": 0.5, "clients.count": 5}
    ready = prepare(experiment(rows, **hidden))
    if fault == "even numbers alone":
        real = fixed_point.fixed
        coarse = lambda plain, **how: {n: v // 2 * 2 for n, v in real(plain, **how).items()}  # noqa: E731
        monkeypatch.setattr(fixed_point, "fixed", coarse)
    if fault == "no mask at all":
        monkeypatch.setattr(Sharing, "mask", lambda *_: None)
        monkeypatch.setattr(masked, "unmask", lambda *_: None)
    if fault == "a mask on half":
        whole = Sharing.mask
        half = lambda self, words, *how: whole(self, words[: len(words) // 2], *how)  # noqa: E731
        monkeypatch.setattr(Sharing, "mask", half)
    found = {each.what: each.outcome for each in check_releases(ready)}
    assert found["parts under masks"] == ("VIOLATION" if fault else "CONSISTENT")
