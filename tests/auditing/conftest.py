"""An experiment whose teachers are audited in a second."""

import pytest
import tiny
import torch
from cheap_teachers import DP


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
