"""The study of secure sums on a few numbers."""

import importlib.util
from pathlib import Path

import pytest

from fedkd.exchange.masking.graph import degree

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def study():
    file = ROOT / "simulations" / "secure_sums.py"
    spec = importlib.util.spec_from_file_location("secure_sums", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_row_is_measured_and_every_sum_is_the_survivors(study, capsys):
    study.table_of_costs([5, 40], [0.0, 0.2], 0.001)
    study.one_client(40, 0.1, 100)
    study.signatures(3)
    told = capsys.readouterr().out
    assert told.count("│") > 50
    found = degree(40, 36)
    of_one = f"one of 40 clients, 100 numbers, 10% may be lost: k {found.neighbours}, t "
    assert f"{of_one}{found.threshold};" in " ".join(told.split())
    assert "P-384 signatures of 3 clients" in told


def test_a_sum_that_is_not_the_survivors_would_show(study):
    words, _ = study.secure_sum(
        50, lambda told: study.Circle(told, 3, b""), range(4), [0, 1, 3], [0, 1, 3], range(4)
    )
    assert (words == study.plain_sum(50, [0, 1, 3])).all()
    assert not (words == study.plain_sum(50, range(4))).all()
