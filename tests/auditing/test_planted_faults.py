"""Faults that void a guarantee are found: by what leaks, or by how the training goes about it."""

import faults
import numpy as np
import own_models
import pytest
import tiny
from cheap_teachers import DP

from fedkd.auditing import structure
from fedkd.auditing.verdicts import Check, raise_on_violation
from fedkd.config import Optimisation
from fedkd.errors import BudgetError, ConfigError, PrivacyViolationError
from fedkd.federation.prepare import prepare
from fedkd.jobs.audit import releases
from fedkd.jobs.audit.releases import check_releases
from fedkd.jobs.audit.teachers import audit_teacher, audit_used
from fedkd.jobs.simulate import simulate
from fedkd.learning.dp import sgd
from fedkd.learning.dp.sgd import Noise
from fedkd.methods.core import client_context, sums, votes
from fedkd.methods.unlike import fedkt
from fedkd.privacy import mechanisms
from fedkd.privacy.allowance import Allowance
from fedkd.privacy.events import Gaussian

LEAKS = ["noise 0", "sigma / 4", "sigma / 2", "clip skipped", "ghost clipping, deaf criterion"]
BUILT_WRONG = {
    "noise 0": "noise after the clip, once a step",
    "sigma / 4": "noise after the clip, once a step",
    "sigma / 2": "noise after the clip, once a step",
    "clip skipped": "clipping of a record alone",
    "ghost clipping, deaf criterion": "clipping of a record beside one that pulls the same way",
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
    monkeypatch.setattr(structure, "check_noise_of", lambda *_: Check("", "CONSISTENT", ""))


@ghost_warns
@pytest.mark.parametrize("name", BUILT_WRONG)
def test_a_planted_fault_is_found(name, private_experiment, monkeypatch):
    faults.plant(name, monkeypatch)
    # What does not leak shows in how the training goes about it, whatever the canaries.
    canaries = 2000 if name in LEAKS else 200
    found = audit_teacher(private_experiment, look_away, canaries=canaries)
    broken = [check.what for check in found.checks if check.outcome == "VIOLATION"]
    assert BUILT_WRONG[name] in broken
    [verdict] = found.verdicts
    assert verdict.outcome == "VIOLATION" or name not in LEAKS
    with pytest.raises(PrivacyViolationError, match="VIOLATION"):
        raise_on_violation([*found.verdicts, *found.checks])


NOISE = Noise(1.0, 1.0, 0.5, 8)
EPOCHS = Optimisation(epochs=2, learning_rate=0.1)
IN_TRAINING = [
    ("_protected", faults.bare_vectors, "noise after the clip, once a step"),
    ("gaussian", faults.BareAtLast(3), "noise after the clip, once a step"),
    (
        "clipped_sum",
        faults.clipped_after_the_sum,
        "clipping of a record beside one that pulls against",
    ),
    ("NoiseSource", faults.Counting, "source of the noise on gradients"),
    ("NoiseSource", faults.Seeded, "source of the noise on gradients"),
    ("NoiseSource", faults.Twister, "source of the noise on gradients"),
]


@pytest.mark.parametrize(("where", "fault", "what"), IN_TRAINING)
def test_what_canaries_miss_is_found_in_the_training(where, fault, what, monkeypatch):
    monkeypatch.setattr(sgd, where, fault)
    monkeypatch.setattr(structure, "_STEPS", 20)
    checks = structure.check_training(NOISE, EPOCHS, Gaussian("x", 1.0, 0.5, 4))
    broken = [check.what for check in checks if check.outcome == "VIOLATION"]
    assert any(each.startswith(what) for each in broken)


def test_a_bias_without_noise_is_found_in_the_audited_model(private_experiment, monkeypatch):
    monkeypatch.setattr(sgd, "_protected", faults.bare_vectors)
    prepared = prepare(private_experiment)
    model = prepared.setting.build(private_experiment.client_model(0), purpose="audited")
    check = structure.check_noise_of("mlp", model, prepared.data.clients[0].x[:2], NOISE)
    assert check.outcome == "VIOLATION"
    assert "bias" in check.found


RELEASED = [
    ("feddf", mechanisms, "laplace", faults.bare, "noise on the example count"),
    ("fedpair", mechanisms, "laplace", faults.bare, "noise on the class counts"),
    (
        "feddf",
        client_context,
        "NoiseSource",
        faults.Twister,
        "source of the noise on the example count",
    ),
    ("analytic", sums, "protected", faults.bare_labels, "clip, sensitivity and noise"),
    ("analytic", sums, "protected", faults.too_sensitive, "clip, sensitivity and noise"),
    ("analytic", sums, "protected", faults.unbalanced, "clip, sensitivity and noise"),
    ("analytic", sums, "NoiseSource", faults.Counting, "source of the noise on the sums"),
    ("analytic", mechanisms, "clip", lambda rows, _: rows, "clip, sensitivity and noise"),
    ("summed_steps", mechanisms, "clip", lambda rows, _: rows, "clip and noise of the sum of grad"),
    ("summed_steps", mechanisms, "gaussian", faults.bare, "clip and noise of the sum of gradients"),
    ("summed_steps", sums, "NoiseSource", faults.Counting, "source of the noise on the sum of gra"),
    ("fedkt", mechanisms, "noisy_votes", faults.bare_votes, "noise on votes of teachers"),
    ("fedkt", votes, "NoiseSource", faults.Counting, "source of the noise on votes of teachers"),
    ("fedkt", fedkt, "divided", faults.dealt_evenly, "votes that one record moves"),
]


MUST_HAVE = {
    "summed_steps": {"method.records": 100},
    "fedkt": {
        "method.teachers": 6,
        "method.digest": {"epochs": 1},
        "privacy.epsilon": 400.0,
        "clients.training": {"epochs": 5, "learning_rate": 0.1},
    },
}


@pytest.fixture
def released(rows, squares):
    def prepared(method, **changes):
        told = {
            "rounds": 1,
            "privacy.clip": 4.0,
            "privacy.epsilon": 4.0,
            "method.name": method,
            **MUST_HAVE.get(method, {}),
            "clients.models": [{"name": "mlp", "hidden": [16]}],
        }
        data = squares if method.startswith("fedpair") else rows
        return prepare(tiny.experiment(data, {**told, **changes}))

    return prepared


@pytest.mark.parametrize(("method", "where", "name", "fault", "what"), RELEASED)
def test_a_value_that_is_paid_for_and_sent_bare_is_found(
    method, where, name, fault, what, released, monkeypatch
):
    prepared = released(method)
    monkeypatch.setattr(where, name, fault)
    broken = [each.what for each in check_releases(prepared) if each.outcome == "VIOLATION"]
    assert any(each.startswith(what) for each in broken)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("feddf", {}),
        ("feddf", {"privacy.epsilon": 30.0, "privacy.count_noise": 0.3}),
        ("fedpair", {}),
        ("fedpair", {"privacy.epsilon": 30.0, "privacy.count_noise": 0.3}),
        ("analytic", {}),
        ("analytic", {"privacy.epsilon": 1.0}),
        ("analytic", {"method.balance": 3.0}),
        ("analytic", {"method.components": 5, "method.precision": "float32"}),
        ("analytic", {"privacy.secure_aggregation": True, "clients.quorum": 1.0}),
        ("fedkt", {}),
        ("summed_steps", {"rounds": 3}),
        ("summed_steps", {"privacy.secure_aggregation": True}),
    ],
)
def test_what_is_released_with_its_noise_is_not_accused(method, changes, released):
    checks = check_releases(released(method, **changes))
    assert len(checks) >= 2
    assert [each for each in checks if each.outcome != "CONSISTENT"] == []


@pytest.fixture
def words(tmp_path):
    """Rows of numbers that are words, with which a model of a user's own looks up vectors."""
    draw = np.random.default_rng(0)
    parts = {}
    for part, size in (("train", 240), ("test", 120)):
        y = np.arange(size) % 3
        x = own_models.FIRST + (y[:, None] + draw.integers(0, 4, (size, 5))) % own_models.WORDS
        parts |= {f"x_{part}": x.astype(np.float32), f"y_{part}": y.astype(np.int64)}
    np.savez(tmp_path / "words.npz", **parts)
    return tmp_path / "words.npz"


OWN = {"name": "own_models:Words"}


def test_sums_of_a_model_that_takes_words_alone_are_replayed(words, released, monkeypatch):
    changes = {"data.name": str(words), "student.model": OWN, "clients.models": [OWN]}
    prepared = released("analytic", **changes)
    assert {each.outcome for each in check_releases(prepared)} == {"CONSISTENT"}
    monkeypatch.setattr(mechanisms, "clip", lambda rows, _: rows)
    assert "VIOLATION" in {each.outcome for each in check_releases(prepared)}


def test_a_teacher_that_takes_words_alone_is_audited(words, monkeypatch):
    monkeypatch.setattr(structure, "check_training", lambda *_: [])
    experiment = tiny.experiment(words, {**DP, "clients.models": [OWN], "rounds": 1})
    found = audit_teacher(experiment, look_away, canaries=500)
    assert "VIOLATION" not in {each.outcome for each in found.outcomes}
    assert "noise on each parameter of own_models:Words" in {each.what for each in found.checks}
    [verdict] = found.verdicts
    assert verdict.epsilon > 0


def test_only_what_a_run_uses_is_audited_at_its_own_noise(released, rows):
    prepared = released("feddf")
    gaussian, laplace = audit_used(prepared).verdicts
    noise = prepared.setting.experiment.privacy.noise_multiplier
    assert [event.noise_multiplier for event in gaussian.claim.events] == [noise]
    assert laplace.what == "Laplace noise, as of example count"
    assert laplace.claim.epsilon == pytest.approx(1 / 10, abs=1e-3)
    [summed] = audit_used(released("analytic")).verdicts
    assert summed.what == "Gaussian noise, as of sums of features"
    assert audit_used(prepare(tiny.experiment(rows))).outcomes == ()


VOTES = {"clients.count": 12, "privacy.unit": "client-votes", "privacy.epsilon": 1e6}
LOGITS = {"clients.count": 18, "privacy.unit": "client-logits", "privacy.epsilon": 1e6}


@pytest.mark.parametrize(("changes", "noise"), [(VOTES, 0.6), (VOTES, 0.25), (LOGITS, 0.6)])
def test_what_the_server_combines_is_replayed(changes, noise, released, monkeypatch):
    prepared = released("dsfl", **changes, **{"privacy.noise_multiplier": noise})
    assert {each.outcome for each in check_releases(prepared)} == {"CONSISTENT"}
    voted = changes is VOTES
    fault = faults.bare_votes if voted else faults.bare
    monkeypatch.setattr(mechanisms, "noisy_votes" if voted else "gaussian", fault)
    assert {each.outcome for each in check_releases(prepared)} == {"VIOLATION"}


@pytest.mark.parametrize("epsilon", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("fault", [faults.clipped_after_the_sum, faults.nothing])
def test_an_attack_that_sees_too_little_is_not_called_consistent(
    fault, epsilon, rows, verdicts_alone, monkeypatch
):
    """Clipped after the sum, canaries leave less than the noise lets through."""
    monkeypatch.setattr(sgd, "clipped_sum", fault)
    experiment = tiny.experiment(rows, {**DP, "rounds": 1, "privacy.epsilon": epsilon})
    # At epsilon 1 the AUC is 0.56: 0.5 is eight standard errors below it with 6,000 canaries.
    [verdict] = audit_teacher(experiment, look_away, canaries=6000).verdicts
    assert verdict.outcome == "UNEXPLAINED"
    assert "DP-SGD of client 0" in verdict.shortfall


def test_so_few_canaries_that_seeing_nothing_would_not_show_have_no_power(rows, verdicts_alone):
    experiment = tiny.experiment(rows, {**DP, "rounds": 1, "privacy.epsilon": 1.0})
    [verdict] = audit_teacher(experiment, look_away, canaries=200).verdicts
    assert verdict.outcome == "NO POWER"
    assert verdict.ceiling > verdict.claim.epsilon
    assert "would not be noticed" in verdict.shortfall


def test_a_sum_without_records_is_not_called_clipped(monkeypatch):
    monkeypatch.setattr(sgd, "clipped_sum", faults.nothing)
    assert {check.outcome for check in structure._clip(NOISE)} >= {"UNEXPLAINED"}


def test_a_count_whose_noise_takes_too_many_records_is_not_replayed(released, monkeypatch):
    monkeypatch.setattr(releases, "_MOST_COUNTED", 1000)
    [check] = check_releases(released("fedpair"))
    assert check.outcome == "NO POWER"
    assert "noise of scale 10 shows on 1,200 made-up records" in check.found


def test_correct_code_is_not_accused(private_experiment):
    found = audit_teacher(private_experiment, look_away, canaries=1000)
    assert {check.outcome for check in found.checks} == {"CONSISTENT"}
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
        [verdict] = audit_teacher(experiment, look_away, canaries=4000).verdicts
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
