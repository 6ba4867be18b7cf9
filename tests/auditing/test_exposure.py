"""Exposure of planted secrets: ranks, what they refute, and a text learned by heart."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedkd import config
from fedkd.auditing import exposure
from fedkd.auditing.verdicts import Claim
from fedkd.errors import UsageError
from fedkd.federation.answers import Unwatched
from fedkd.jobs.audit.secrets import Secret, audit_secret
from fedkd.privacy.events import Gaussian


def judged(losses, planted, *, times=1, claim=None):
    return exposure.judge(
        losses, torch.tensor(planted), on="it", threat="all", times=times, claim=claim
    )


def test_the_likeliest_of_all_is_exposed_wholly_and_the_last_not_at_all():
    losses = torch.arange(16.0)
    assert judged(losses, [0]).bits == (4.0,)
    assert judged(losses, [15]).bits == (0.0,)
    assert judged(losses, [3]).bits == (2.0,)


def test_secrets_do_not_stand_in_each_others_way():
    assert judged(torch.arange(17.0), [0, 1]).bits == (4.0, 4.0)


def test_what_a_model_cannot_tell_apart_exposes_nothing():
    assert judged(torch.ones(64), [5]).bits == (0.0,)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_losses_that_are_no_numbers_expose_nothing(value):
    assert judged(torch.full((65,), value), [5, 9]).bits == (0.0, 0.0)


def test_a_model_that_never_saw_them_has_log2_e_bits_on_average():
    draws = torch.Generator().manual_seed(0)
    bits = judged(torch.rand(5000, generator=draws), list(range(2000))).bits
    assert sum(bits) / len(bits) == pytest.approx(math.log2(math.e), abs=0.1)


@given(st.integers(1, 100), st.integers(1, 5), st.floats(0, 1e-4))
def test_no_claim_is_refuted_that_makes_the_rank_likely(rank, times, delta):
    found = exposure.least_epsilon(rank, 10_000, times=times, delta=delta, doubt=0.05)
    extra = delta * sum(math.exp(found * step) for step in range(times))
    if found > 0:
        likely = math.exp(found * times) * rank / 10_000 + extra
        assert likely == pytest.approx(0.05, rel=1e-3)
    else:
        assert rank / 10_000 + delta * times >= 0.05


def test_a_small_claim_is_refuted_by_one_secret_and_a_large_one_is_not():
    losses = torch.arange(10_000.0)
    small = Claim.of([Gaussian("training", 20.0)], 1e-5)
    large = Claim.of([Gaussian("training", 0.3)], 1e-5)
    outcomes = [judged(losses, [0], claim=claim).verdict.outcome for claim in (small, large)]
    assert outcomes == ["VIOLATION", "NO POWER"]
    assert judged(losses, [0]).epsilon == pytest.approx(math.log(500), abs=1e-3)
    assert judged(losses, [0], times=4).epsilon == pytest.approx(math.log(500) / 4, abs=1e-3)


TEXTS = ["we met in the old town", "the bus was late", "a day in may", "so it goes in town"]


@pytest.fixture(scope="module")
def writes(tmp_path_factory):
    """A language model's experiment; `changes` to it."""
    folder = tmp_path_factory.mktemp("texts")
    rows = [{"text": f"{text}, {n}", "site": "ab"[n % 2]} for n in range(10) for text in TEXTS]
    (folder / "a.json").write_text(json.dumps(rows))
    (folder / "public.txt").write_text("\n".join([*TEXTS, "my number is", *"0123456789"]))
    model = {"name": "causal-transformer", "width": 16, "layers": 1, "heads": 2}

    def experiment(**changes):
        return config.parse(
            {
                "name": "writes",
                "rounds": 1,
                "task": {"name": "language-model"},
                "data": {
                    "name": str(folder / "a.json"),
                    "client": "site",
                    "partition": {"scheme": "natural"},
                    "text": {"texts": str(folder / "public.txt"), "vocabulary": 300, "length": 24},
                },
                "clients": {
                    "models": [model],
                    "training": {"epochs": 20, "learning_rate": 0.02, "batch_size": 32},
                },
                "student": {"model": model},
                "method": {"name": "fedavg"},
            }
            | changes
        )

    return experiment


def test_a_language_model_gives_a_text_away_that_it_learned_by_heart(writes, tmp_path):
    secret = Secret(digits=2, secrets=1, times=12)
    found = audit_secret(writes(), secret, tmp_path / "run", Unwatched())
    student, own = found.exposures
    assert (student.on, own.on) == ("the student", "the model of client 0")
    assert min(student.bits[0], own.bits[0]) > 3  # of 6.6; chance has so much once in 8
    assert student.verdict is None


def test_under_dp_it_is_held_against_what_was_spent(writes, tmp_path):
    private = {"epsilon": 1.0, "sample_rate": 0.5, "batch_size": 50}
    training = {"epochs": 1, "learning_rate": 0.02}
    asked = writes(privacy=private)
    clients = asked.clients.model_copy(
        update={"training": asked.clients.training.model_copy(update=training)}
    )
    asked = asked.model_copy(update={"clients": clients})
    found = audit_secret(asked, Secret(digits=1), tmp_path / "run", Unwatched())
    for each in found.exposures:
        assert each.verdict is not None
        assert each.verdict.claim.epsilon <= 1.0
        assert each.verdict.outcome == "NO POWER"


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        (Secret("my number"), "expected a text with one {}"),
        (Secret(digits=7), "1 to 6 digits"),
        (Secret(client=2), "no client 2: expected 0 to 1"),
        (Secret(label="x"), "label 'x' is no class of task 'language-model', which has none"),
        (Secret(digits=1, secrets=6), "6 secrets: expected 1 to 5"),
        (Secret("we met in the old old old town at noon, {}"), "tokens, and data.text.length"),
    ],
)
def test_a_secret_that_does_not_fit_is_refused(writes, tmp_path, secret, message):
    with pytest.raises(UsageError, match=message):
        audit_secret(writes(), secret, tmp_path / "run", Unwatched())
