"""Every built-in method, way and form gives the bits that were recorded.

What is not meant to change results leaves all of this as it is; for what is, see record.py.
"""

import json
from typing import Any

import pytest
from golden_cases import CASES, FORMS, METHODS, WAYS
from golden_run import GOLDENS, measure

from fedkd import methods
from fedkd.learning import forms, ways

RECORDED: dict[str, Any] = json.loads(GOLDENS.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """What this checkout gives; skips where arithmetic is another than that of the record."""
    found = measure()
    was, now = RECORDED["probe"], found["probe"]
    if other := [part for part in was.keys() | now.keys() if was.get(part) != now.get(part)]:
        pytest.skip(
            f"other arithmetic than that of the goldens ({', '.join(sorted(other))}), without any "
            f"fedkd in it: recorded with {RECORDED['versions']}, here {found['versions']}"
        )
    return found


def test_everything_built_in_is_recorded() -> None:
    # Later ones have tests of their own.
    assert set(METHODS) <= set(methods.BUILT_IN)
    assert set(WAYS) <= set(ways.BUILT_IN)
    assert set(FORMS) <= set(forms.BUILT_IN)
    assert set(RECORDED["cases"]) == set(CASES)


@pytest.mark.slow
def test_the_samples_are_those_of_the_record(measured: dict[str, Any]) -> None:
    assert measured["files"] == RECORDED["files"]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_student_and_the_rounds_are_those_of_the_record(
    case: str, measured: dict[str, Any]
) -> None:
    assert measured["cases"][case] == RECORDED["cases"][case]
