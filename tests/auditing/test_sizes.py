"""Whether noise has its size: by exact chances, and only where no noise at all would show."""

import numpy as np
import pytest
import torch

from fedkd.auditing.entropy import check_source
from fedkd.auditing.sizes import check_counts, check_share
from fedkd.privacy.source import NoiseSource


def drawn(scale: float, draws: int = 500) -> torch.Tensor:
    """Rounded Laplace noise."""
    return torch.from_numpy(NoiseSource().laplace(np.full(draws, scale)))


@pytest.mark.parametrize("scale", [0.3, 1.0, 50.0])
def test_counts_without_noise_are_told_from_counts_with_it(scale):
    assert check_counts("counts", {"class 0": drawn(scale)}, scale).outcome == "CONSISTENT"
    for wrong in (torch.zeros(500), drawn(scale / 2), drawn(2 * scale)):
        assert check_counts("counts", {"class 0": wrong}, scale).outcome == "VIOLATION"


@pytest.mark.parametrize("scale", [1e-4, 0.01, 0.12])
def test_noise_that_rounds_to_nothing_gives_no_power(scale):
    for noise in (torch.zeros(500), drawn(scale)):
        check = check_counts("counts", {"class 0": noise}, scale)
        assert check.outcome == "NO POWER"
        assert "too few to tell it from none" in check.found
    assert check_counts("counts", {"class 0": drawn(40.0)}, scale).outcome == "VIOLATION"


@pytest.mark.parametrize(
    ("hits", "expected", "outcome"),
    [(250, 0.5, "CONSISTENT"), (500, 0.5, "VIOLATION"), (500, 0.99, "NO POWER")],
)
def test_what_happens_always_is_told_from_what_happens_often(hits, expected, outcome):
    assert check_share("votes", hits, 500, expected).outcome == outcome


def test_noise_that_is_mostly_zero_is_not_said_to_repeat():
    assert check_source("counts", lambda: drawn(0.15)).outcome == "CONSISTENT"


def test_noise_that_asks_aes_and_does_not_use_it_is_found():
    def release():
        drawn(1.0)
        return torch.sin(torch.arange(500.0))

    check = check_source("counts", release)
    assert check.outcome == "VIOLATION"
    assert check.found == "other entropy makes the same noise"
