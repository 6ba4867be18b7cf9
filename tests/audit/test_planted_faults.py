"""Faults that void a guarantee are found: by what leaks, or by how the training goes about it."""

import faults
import pytest
import tiny

from fedkd.audit import structure
from fedkd.audit.verdicts import raise_on_violation
from fedkd.errors import BudgetError, ConfigError, PrivacyViolationError
from fedkd.privacy.allowance import Allowance
from fedkd.runs.audits import audit_teacher
from fedkd.runs.simulate import simulate

LEAKS = ["noise 0", "sigma / 4", "sigma / 2", "clip skipped", "ghost clipping, deaf criterion"]
BUILT_WRONG = {
    "noise 0": "noise after the clip, once a step",
    "sigma / 4": "noise after the clip, once a step",
    "sigma / 2": "noise after the clip, once a step",
    "clip skipped": "clipping",
    "ghost clipping, deaf criterion": "clipping",
    "the same noise every round": "noise drawn anew, from no seed",
    "steps that are not accounted": "all steps are accounted",
    "shuffling in place of Poisson": "Poisson sampling",
}
ghost_warns = pytest.mark.filterwarnings("ignore:Full backward hook is firing")


def look_away(*_, **__):
    pass


@pytest.fixture
def verdicts_alone(monkeypatch):
    """Audit canaries, without the looks at structure that other tests take."""
    monkeypatch.setattr(structure, "check_training", lambda *_: [])


@ghost_warns
@pytest.mark.parametrize("name", BUILT_WRONG)
def test_a_planted_fault_is_found(name, private_experiment, monkeypatch):
    faults.plant(name, monkeypatch)
    found = audit_teacher(private_experiment, look_away)
    broken = [check.what for check in found.checks if check.outcome == "VIOLATION"]
    assert BUILT_WRONG[name] in broken
    [verdict] = found.verdicts
    assert verdict.outcome == "VIOLATION" or name not in LEAKS
    with pytest.raises(PrivacyViolationError, match="VIOLATION"):
        raise_on_violation([*found.verdicts, *found.checks])


def test_correct_code_is_not_accused(private_experiment):
    found = audit_teacher(private_experiment, look_away, canaries=1000)
    assert [check.outcome for check in found.checks] == ["CONSISTENT"] * 5
    [verdict] = found.verdicts
    assert verdict.outcome == "CONSISTENT"
    assert 0 < verdict.epsilon < verdict.claim.epsilon <= 4 < verdict.ceiling
    raise_on_violation([*found.verdicts, *found.checks])


def test_half_the_noise_is_caught_by_the_gaussian_estimator(
    private_experiment, verdicts_alone, monkeypatch
):
    faults.plant("sigma / 2", monkeypatch)
    caught = 0
    for seed in range(10):
        experiment = private_experiment.model_copy(update={"seed": seed})
        [verdict] = audit_teacher(experiment, look_away).verdicts
        by_name = {bound.estimator: bound.epsilon for bound in verdict.bounds}
        caught += by_name["Gaussian DP"] > verdict.claim.epsilon
    assert caught >= 9


def test_correct_code_is_seldom_accused(private_experiment, verdicts_alone):
    """Forty seeds: simulations/audit_power.py."""
    accused = 0
    for seed in range(8):
        experiment = private_experiment.model_copy(update={"seed": seed})
        [verdict] = audit_teacher(experiment, look_away, canaries=500).verdicts
        accused += verdict.outcome == "VIOLATION"
    assert accused <= 1


def test_a_batch_norm_that_was_left_in_is_refused_before_training(squares):
    changes = {"privacy.epsilon": 4.0, "clients.models": ["dense-cnn"]}
    with pytest.raises(ConfigError, match="BatchNorm2d"):
        audit_teacher(tiny.experiment(squares, changes), look_away)


def test_a_training_that_the_ledger_does_not_see_sends_nothing(
    private_experiment, tmp_path, monkeypatch
):
    """The accountant's hook is lost: nothing was reserved, so the gate lets nothing out."""
    monkeypatch.setattr(Allowance, "spend", look_away)
    monkeypatch.setattr(Allowance, "__init__", _reserves_nothing)
    with pytest.raises(BudgetError, match="nobody paid for") as refused:
        simulate(private_experiment, tmp_path / "run", tiny.Quiet())
    assert refused.value.exit_status == 4
    assert not (tmp_path / "run" / "student.safetensors").exists()


def _reserves_nothing(self, account, _purpose, _events):
    self._account, self._reservation, self.used = account, None, False
