"""The study of segmentation writes the folder that its configuration is for."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from fedkd import config
from fedkd.federation.prepare import prepare

ROOT = Path(__file__).parents[2]
NUCLEI = Path(os.environ.get("FEDKD_DATA", "")) / "nuclei"


def study():
    where = ROOT / "simulations" / "segmentation.py"
    spec = importlib.util.spec_from_file_location("segmentation_study", where)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_nucleus_has_a_border_towards_the_ground_and_towards_others() -> None:
    instances = np.array(
        [
            [0, 0, 0, 0, 0, 0],
            [0, 4, 4, 4, 7, 0],
            [0, 4, 4, 4, 7, 0],
            [0, 4, 4, 4, 7, 0],
            [0, 0, 0, 0, 0, 0],
        ]
    )
    assert study().classes_of(instances).tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 1, 0],
        [0, 1, 2, 1, 1, 0],
        [0, 1, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0],
    ]


@pytest.mark.skipif(not NUCLEI.is_dir(), reason="FEDKD_DATA has no nuclei/")
def test_the_example_is_for_what_the_study_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = study()
    monkeypatch.chdir(tmp_path)
    module.write(tmp_path / "nuclei")
    prepared = prepare(config.load(ROOT / "fedkd" / "configs" / "segmentation.toml"))
    data = prepared.data
    assert [len(client) for client in data.clients] == [8 * 6, 3 * 4 * 9]
    assert len(data.public) == 4 * 4 * 9
    a, b = module.tests(prepared)
    assert (len(a), len(b)) == (8 * 2, 2 * 4 * 9)
    assert int((a.y >= 0).sum()) == 512 * 128
    assert int((b.y >= 0).sum()) == 2 * 210 * 576
