"""An experiment whose teachers are audited in a second."""

import pytest
import tiny
import torch

DP = {
    "privacy.epsilon": 4.0,
    "privacy.sample_rate": 0.25,
    "clients.models": [{"name": "mlp", "hidden": [16]}],
    "clients.training.epochs": 2,
}


@pytest.fixture
def private_experiment(rows):
    return tiny.experiment(rows, DP)


@pytest.fixture(autouse=True)
def one_thread():
    """Small products wait for each other's threads, ten times as long on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
