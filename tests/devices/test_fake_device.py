"""Nothing is mixed between the CPU and a device, and what comes out is the same.

The device is made up, see fake_device.py; its arithmetic is the CPU's, so it shows where tensors
are, and nothing of how an accelerator rounds.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from golden_cases import METHODS, WAYS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
OTHERS = (
    *(f"form {name}" for name in ("kd", "fitnets", "at", "vid", "ab", "ft", "rkd", "graph")),
    "task regression",
    "task multi-label",
    "DP-SGD",
    "DP-SGD from a teacher",
    "sums under masks, with noise",
    "two devices",
    "audit of messages",
    "audit of a teacher",
)
CASES = (*(f"method {name}" for name in METHODS), *(f"way {name}" for name in WAYS), *OTHERS)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """What each case gave, from a process of its own."""
    paths = (ROOT, HERE, HERE.parent, HERE.parent / "goldens")
    done = subprocess.run(
        [sys.executable, str(HERE / "on_fake.py")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_device_refuses_the_cpu(measured: dict[str, Any]) -> None:
    assert "aten.add" in measured["refused"]


def test_a_model_comes_home_after_an_error(measured: dict[str, Any]) -> None:
    assert measured["comes home"] is True


def test_autograds_thread_for_a_device_waits_for_no_other(measured: dict[str, Any]) -> None:
    assert measured["ends"] is True


def test_the_generator_of_a_device_is_borrowed_and_put_back(measured: dict[str, Any]) -> None:
    before, meanwhile, after = measured["seeds"]
    assert before == after != meanwhile


@pytest.mark.parametrize("case", CASES)
def test_a_device_gives_what_the_cpu_gives(case: str, measured: dict[str, Any]) -> None:
    found = measured[case]
    assert "error" not in found, found["error"]
    assert found["gap"] <= 1e-6
    assert sum(found["operations"].values()) > 20  # it was there that models learnt


def test_clients_are_shared_out_among_devices(measured: dict[str, Any]) -> None:
    assert set(measured["two devices"]["operations"]) == {"fake:0", "fake:1"}


def test_nothing_is_left_out(measured: dict[str, Any]) -> None:
    assert set(measured) == {*CASES, "refused", "seeds", "comes home", "ends"}
