"""docs/survey.md names what there is, and every config that it names runs, at tiny size."""

import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import shrunk
import tiny
from golden_run import draw_nothing
from matplotlib.backends.backend_svg import FigureCanvasSVG

from fedkd import config
from fedkd.jobs.distil import distil
from fedkd.jobs.simulate import simulate

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "survey.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"configs/(\w+\.toml)", TEXT)))
SAMPLE = ("fashion-mnist-sample", "fashion-mnist", "mnist")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 images of the packaged sample at half its size, for all of it and of its larger kin."""
    with np.load(ROOT / "fedkd" / "data" / "sample" / "fashion_mnist.npz") as arrays:
        cut = {name: arrays[name][: 120 if "train" in name else 30] for name in arrays}
    cut |= {name: images[:, ::2, ::2] for name, images in cut.items() if name.startswith("x_")}
    path = tmp_path_factory.mktemp("few") / "few.npz"
    np.savez(path, **cut)
    return path


@pytest.fixture(scope="module", autouse=True)
def no_charts():
    """They are most of the time of so small a run, and not what is asked here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FigureCanvasSVG, "print_svg", FigureCanvasSVG.print_svg)
        draw_nothing()
        yield


def study(name: str):
    """A script of simulations/, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "simulations" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FILES: dict[str, Callable[[Path], None]] = {
    "diabetes.csv": lambda path: study("tasks").write_diabetes(path),
    "digits.csv": lambda path: study("tasks").write_digits(path),
}
"""What writes the file that a config reads, by its name."""
FROM_FEDKD_DATA = {"digits.csv": "mfeat", "heart-disease": "heart_disease"}


def set_up(data: str, folder: Path, few: Path) -> str:
    """The name of a config's data at tiny size, once it is there; or the test is skipped."""
    if data in SAMPLE:
        return str(few)
    needed = FROM_FEDKD_DATA.get(data)
    if needed and not (Path(os.environ.get("FEDKD_DATA", "")) / needed).is_dir():
        pytest.skip(f"no {needed}/ in FEDKD_DATA")
    if data in FILES:
        path = folder / data
        FILES[data](path)
        header, *rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join([header, *rows[:: max(1, len(rows) // 200)]]), encoding="utf-8")
        return str(path)
    return data


@pytest.mark.parametrize("name", NAMED)
def test_a_config_that_the_document_names_runs(name, tmp_path, few):
    table = config.read(ROOT / "configs" / name)
    source = table.setdefault("data", {})
    source["name"] = set_up(source.get("name", SAMPLE[0]), tmp_path, few)
    if "method" in table:
        summary = simulate(shrunk.experiment(table), tmp_path / "run", tiny.Quiet())
    else:
        summary = distil(shrunk.distillation(table), tmp_path / "run")
    assert (tmp_path / "run" / "student.safetensors").exists()
    assert summary["student"]


def anchor(heading: str) -> str:
    """What a heading is linked by: GitHub's rule."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_link_resolves():
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", TEXT)
    assert len(links) > 20
    for target, place in links:
        linked = DOCUMENT if not target else DOCUMENT.parent / target
        assert linked.exists(), target
        if place:
            headings = re.findall(r"^#+ (.*)$", linked.read_text("utf-8"), flags=re.MULTILINE)
            assert place in map(anchor, headings), f"{target}#{place}"
