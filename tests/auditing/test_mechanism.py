"""The noise and the clip alone."""

import faults
import pytest
import torch
from torch import nn

from fedkd.auditing import dirac, mechanism
from fedkd.config import Optimisation
from fedkd.data.types import Samples
from fedkd.learning.dp.sgd import Noise
from fedkd.privacy import mechanisms
from fedkd.privacy.events import Gaussian, Laplace


def audited(draws=20_000, noise=1.0):
    coins = torch.Generator().manual_seed(1)
    events = [Gaussian("sum", noise), Laplace("count", noise)]
    return mechanism.audit(events, draws=draws, delta=1e-5, generator=coins)


def test_the_mechanisms_are_nearly_as_private_as_they_claim():
    gaussian, laplace = audited()
    assert gaussian.claim.epsilon == pytest.approx(4.377, abs=1e-3)
    assert laplace.claim.epsilon == pytest.approx(1.0, abs=1e-3)
    assert 3.4 < gaussian.epsilon < gaussian.claim.epsilon
    assert 0.8 < laplace.epsilon < laplace.claim.epsilon
    assert [gaussian.outcome, laplace.outcome] == ["CONSISTENT", "CONSISTENT"]


def test_half_the_noise_shows(monkeypatch):
    monkeypatch.setattr(mechanisms, "gaussian", faults.weaker(1 / 2, mechanisms.gaussian))
    gaussian, _ = audited()
    assert gaussian.outcome == "VIOLATION"
    assert 8 < gaussian.epsilon < 11  # in truth 9.99


def test_a_clip_that_is_skipped_shows(monkeypatch):
    monkeypatch.setattr(mechanisms, "clipped_sum", faults.unclipped)
    gaussian, _ = audited()
    assert gaussian.outcome == "VIOLATION"
    assert gaussian.epsilon == pytest.approx(gaussian.ceiling)


def test_noise_that_is_far_too_large_is_not_called_consistent(monkeypatch):
    monkeypatch.setattr(mechanisms, "gaussian", faults.weaker(3, mechanisms.gaussian))
    gaussian, laplace = audited()
    assert (gaussian.outcome, laplace.outcome) == ("UNEXPLAINED", "CONSISTENT")
    assert "there is more noise" in gaussian.shortfall


def test_few_draws_have_no_power():
    _, laplace = audited(draws=10, noise=0.5)
    assert laplace.outcome == "NO POWER"


def test_changes_of_inputs_do_not_hide_canaries():
    changed = [{"name": "dropout", "probability": 0.9}]
    optimisation = Optimisation(epochs=4, batch_size=16, learning_rate=0.01, augment=changed)
    draws = torch.Generator().manual_seed(2)
    observed = dirac.observe(
        nn.Sequential(nn.Linear(6, 3)),
        Samples(torch.rand(32, 6, generator=draws), torch.arange(32) % 3),
        optimisation,
        Noise(noise_multiplier=0.2, clip=1.0, sample_rate=0.5, batch_size=16),
        canaries=30,
        generator=draws,
    )
    assert observed.members.min() > observed.others.max()
