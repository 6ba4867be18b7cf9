"""docs/survey.md names what there is, and every config that it names runs, at tiny size."""

import os
import re
from pathlib import Path

import drawn
import pytest
import shrunk
import tiny

from fedkd import config, methods, tasks
from fedkd.data.readers import figures
from fedkd.jobs.distil import distil
from fedkd.jobs.simulate import simulate
from fedkd.learning import forms, ways

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "survey.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"configs/(\w+\.toml)", TEXT)))
SAMPLE = ("fashion-mnist-sample", "fashion-mnist", "mnist")


FROM_FEDKD_DATA = {"digits.csv": "mfeat", "heart-disease": "heart_disease"}


def set_up(data: str) -> str:
    """The name of a config's data at tiny size, once it is there; or the test is skipped."""
    if data == "pedestrians.npz":
        pytest.importorskip("cv2")
    needed = FROM_FEDKD_DATA.get(data)
    if needed and not (Path(os.environ.get("FEDKD_DATA", "")) / needed).is_dir():
        pytest.skip(f"no {needed}/ in FEDKD_DATA")
    if data in SAMPLE:
        drawn.clothes(Path("few.npz"))
        return "few.npz"
    file = Path(data).parts[0]
    if file in drawn.FILES:
        drawn.FILES[file](Path(file))
    return data


@pytest.mark.parametrize("name", NAMED)
def test_a_config_that_the_document_names_runs(name, here, monkeypatch):
    for part in ("TRAIN", "TEST"):
        monkeypatch.setattr(figures, part, 20)  # of figures that are drawn
    monkeypatch.syspath_prepend(ROOT / "simulations")  # where a teacher of our own is
    table = config.read(ROOT / "fedkd" / "configs" / name)
    data = table.setdefault("data", {})
    data["name"] = set_up(data.get("name", SAMPLE[0]))
    source = data.get("public", {}).get("source", "held-out")
    if source != "held-out":
        data["public"]["source"] = set_up(source)
    if "texts" in data.get("text", {}):
        set_up(data["text"]["texts"])
    if "method" in table:
        summary = simulate(shrunk.experiment(table), here / "run", tiny.Quiet())
    else:
        summary = distil(shrunk.distillation(table), here / "run")
    assert (here / "run" / "student.safetensors").exists()
    assert summary["student"]


def test_every_config_is_named():
    assert {path.name for path in (ROOT / "fedkd" / "configs").glob("*.toml")} == set(NAMED)


@pytest.mark.parametrize(
    "built_in", [forms.BUILT_IN, methods.BUILT_IN, tasks.BUILT_IN, ways.BUILT_IN]
)
def test_everything_that_is_built_in_is_named(built_in):
    assert [name for name in built_in if f"`{name}`" not in TEXT] == []
