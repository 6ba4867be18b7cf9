"""Which models learn under record-level privacy, and what is said of the others."""

import numpy as np
import own_models
import pytest
import tiny

from fedkd.errors import ConfigError
from fedkd.federation.prepare import prepare
from fedkd.jobs.simulate import simulate

PRIVATE = {"privacy.epsilon": 8.0, "privacy.sample_rate": 0.5, "privacy.noise_multiplier": 1.0}


@pytest.fixture
def words(tmp_path):
    """Rows of whole numbers, of which the first says the class."""
    draw = np.random.default_rng(0)
    parts = {}
    for part, size in (("train", 240), ("test", 60)):
        low, high = own_models.FIRST, own_models.FIRST + own_models.WORDS
        x = draw.integers(low, high, size=(size, 4))
        parts |= {f"x_{part}": x.astype(np.float32), f"y_{part}": (x[:, 0] - low) % tiny.CLASSES}
    np.savez(tmp_path / "words.npz", **parts)
    return tmp_path / "words.npz"


def test_a_model_of_whole_numbers_learns_under_privacy(words, tmp_path):
    changes = {
        **PRIVATE,
        "clients.models": ["own_models:Words"],
        "student.model": "own_models:Words",
        "method.name": "fedavg",
        "data.public": None,
        "rounds": 1,
    }
    summary = simulate(tiny.experiment(words, changes), tmp_path / "run", tiny.Quiet())
    assert tiny.failures(tmp_path / "run") == []
    assert 0 < summary["privacy"]["epsilon"] <= 8.0


def test_a_refusal_names_the_model_its_layer_and_what_replaces_it(squares):
    changes = {
        **PRIVATE,
        "clients.models": ["mlp", "dense-cnn"],
    }
    with pytest.raises(
        ConfigError,
        match=r"^clients\.models\[1\] is 'dense-cnn': .* layer 'norm1', BatchNorm2d, .*: "
        r"\{ name = 'dense-cnn', norm = 'group' \}$",
    ):
        prepare(tiny.experiment(squares, changes))


def test_a_model_of_the_users_that_couples_records_is_refused_by_its_key(rows):
    model = {"name": "own_models:Branch"}
    changes = {**PRIVATE, "clients.models": [{"name": "mlp"}, model]}
    with pytest.raises(
        ConfigError, match=r"^clients\.models\[1\] is 'own_models:Branch': .* logits depend on"
    ):
        prepare(tiny.experiment(rows, changes))
