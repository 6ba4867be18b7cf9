"""fedkd from Python: what a notebook calls, its runs, and data that is Python's own."""

import ast
import html
import io
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from rich.console import Console
from torch.utils.data import Dataset, TensorDataset

import fedkd
from fedkd.deprecation import FedkdDeprecationWarning
from fedkd.errors import ConfigError, DataError, RunFolderError, UsageError

CHANGES = {"rounds": 1, "clients.count": 2}


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """Three clusters of rows, as an .npz file has them."""
    return dict(np.load(tiny.write_rows(tmp_path_factory.mktemp("rows") / "rows.npz")))


@pytest.fixture(scope="module")
def run(arrays, tmp_path_factory):
    """A run of a Python object, whose classes have names."""
    data = {**arrays, "class_names": ["low", "middle", "high"]}
    folder = tmp_path_factory.mktemp("python") / "run"
    return fedkd.simulate(
        tiny.table(Path("unread")), CHANGES, data=data, out=folder, progress=False
    )


def test_the_package_is_light_and_shows_what_it_has():
    script = "import sys, fedkd; print('torch' in sys.modules, set(fedkd.__all__) <= {*dir(fedkd)})"
    shown = subprocess.check_output([sys.executable, "-c", script], text=True)
    assert shown.split() == ["False", "True"]
    assert all(getattr(fedkd, name) is not None for name in fedkd.__all__)
    tree = ast.parse(Path(fedkd.__file__).read_text(encoding="utf-8"))
    (typed,) = (each for each in tree.body if isinstance(each, ast.If))
    places = {name.name: each.module for each in typed.body for name in each.names}
    assert places == dict(fedkd._MODULES)  # type checkers are told what there is
    assert {*places, "__version__"} == {*fedkd.__all__}
    with pytest.raises(AttributeError, match="has no attribute 'simulat'"):
        _ = fedkd.simulat


def test_a_run_is_its_figures_report_and_student(run):
    assert run.summary["rounds"] == 1
    [row] = run.rounds
    [line] = tiny.rounds(run.path)
    assert row["accuracy"] == line["student"]["accuracy"]
    assert row["teachers_best_accuracy"] == max(
        each["accuracy"] for each in line["teachers"]["by_client"].values()
    )
    assert (row["bytes_up"], row["answered"], row["failed"]) == (line["bytes"]["up"], 2, 0)
    assert "fedmd" in run._repr_html_()
    assert Path(run.report).read_text() in html.unescape(run.report._repr_html_())
    assert run.student.class_names == ("low", "middle", "high")
    assert run.config.rounds == 1


def test_a_loaded_run_answers_with_class_names_and_without_its_data(run, arrays):
    asked = arrays["x_test"]
    found = fedkd.load(run.path).predict(asked)
    names = np.array(["low", "middle", "high"])[arrays["y_test"]]
    right = np.mean([each.answer == name for each, name in zip(found, names, strict=True)])
    assert right == pytest.approx(run.summary["student"]["accuracy"])
    assert right > 0.5
    assert sum(found[0].scores.values()) == pytest.approx(1)
    assert [*found[0].scores.values()] == sorted(found[0].scores.values(), reverse=True)
    [alone] = run.predict(torch.from_numpy(asked[4]))
    assert alone.answer == found[4].answer
    assert alone.scores == pytest.approx(found[4].scores, abs=1e-5)


def test_a_file_of_the_same_arrays_gives_the_same_student(run, arrays, tmp_path):
    np.savez(tmp_path / "rows.npz", **arrays)
    config = tiny.write_config(tmp_path / "a.toml", tmp_path / "rows.npz")
    again = fedkd.simulate(config, CHANGES, out=tmp_path / "run", progress=False)
    assert tiny.student_hash(again.path) == tiny.student_hash(run.path)


def test_a_run_of_an_object_says_what_it_was_and_goes_on_with_it_alone(arrays, tmp_path):
    table, out = tiny.table(Path("unread"), CHANGES), tmp_path / "run"
    fedkd.simulate(table, data=arrays, out=out, progress=False)
    assert fedkd.load(out).config.data.name == "<dict>"
    with pytest.raises(ConfigError, match=r"'<dict>', a Python object that .* pass it again"):
        fedkd.simulate(out / "config.toml", out=out, resume=True, progress=False)
    more = fedkd.simulate(table, rounds=2, data=arrays, out=out, resume=True, progress=False)
    assert len(more.rounds) == 2
    other = {**arrays, "x_train": arrays["x_train"][:99], "y_train": arrays["y_train"][:99]}
    with pytest.raises(RunFolderError, match="begun on other data"):
        fedkd.simulate(table, rounds=2, data=other, out=out, resume=True, progress=False)


class Squares(Dataset):
    """Images with their classes' names, as torchvision's data sets are."""

    classes = ("left", "middle", "right")

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.y)

    def __getitem__(self, place):
        return self.x[place], int(self.y[place])


def test_data_sets_of_torch_alone_and_in_pairs(tmp_path):
    from fedkd import config
    from fedkd.data import given

    read = np.load(tiny.write_images(tmp_path / "images.npz", side=6))
    train = Squares(torch.from_numpy(read["x_train"])[:, None], read["y_train"])
    test = TensorDataset(
        torch.from_numpy(read["x_test"])[:, None], torch.from_numpy(read["y_test"])
    )
    how = {"seed": 3, "targets": "classes"}
    both = given.dataset((train, test), "<pair>", config.Data(), **how)
    assert both.class_names == ("left", "middle", "right")
    assert torch.equal(both.train.x[:, 0], torch.from_numpy(read["x_train"]))
    assert both.test.y.tolist() == read["y_test"].tolist()
    alone = given.dataset(train, "<one>", config.Data(test_share=0.3), **how)
    assert len(alone.train) + len(alone.test) == 240
    assert 40 < len(alone.test) < 105
    assert not {*map(bytes, alone.train.x.numpy())} & {*map(bytes, alone.test.x.numpy())}


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (object(), "is no data: expected arrays by name"),
        ({"x_train": np.zeros((9, 2))}, "has no array 'y_train'"),
        ({"x_train": np.zeros((9, 2)), "y_train": np.full(9, 0.5)}, "y_train is float64"),
        (Squares([np.zeros(3), np.zeros(4)], [0, 1]), r"item 1 has an input of shape \(4,\)"),
    ],
)
def test_what_is_no_data_is_refused_in_a_line(data, match, tmp_path):
    table = tiny.table(Path("unread"), CHANGES)
    with pytest.raises(DataError, match=match) as refused:
        fedkd.simulate(table, data=data, out=tmp_path / "run", progress=False)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_rays_workers_have_no_object_of_this_process(arrays, tmp_path):
    table = tiny.table(Path("unread"), {**CHANGES, "engine.kind": "ray"})
    with pytest.raises(UsageError, match=r"Ray's workers do not have: take engine.kind"):
        fedkd.simulate(table, data=arrays, out=tmp_path / "run", progress=False)


def test_keywords_change_the_configuration_and_a_wrong_one_is_named(arrays, tmp_path):
    table = tiny.table(Path("unread"))
    with pytest.raises(ConfigError, match=r"clients\.cuont"):
        fedkd.simulate(table, clients__cuont=3, data=arrays, out=tmp_path / "run", progress=False)
    assert table["clients"]["count"] == 4  # a caller's table stays as it is


def test_an_audit_by_name(arrays):
    found = fedkd.audit("mechanism", draws=200, progress=False)
    assert found.verdicts
    with pytest.raises(UsageError, match="unknown audit 'teachers': did you mean 'teacher'"):
        fedkd.audit("teachers")
    with pytest.raises(
        UsageError, match="unknown option 'canary' of audit 'teacher': did you mean"
    ):
        fedkd.audit("teacher", "private", canary=3)
    with pytest.raises(UsageError, match="audit 'teacher' is of an experiment"):
        fedkd.audit("teacher")


def test_an_unknown_format_is_refused_with_those_that_there_are(run):
    with pytest.raises(fedkd.FedkdError, match="unknown format 'pdf': valid here: onnx, torchs"):
        run.export("pdf")


def test_an_unfinished_run_is_refused(run, tmp_path):
    (tmp_path / "config.toml").write_text((run.path / "config.toml").read_text())
    with pytest.raises(RunFolderError, match="the run is unfinished"):
        fedkd.load(tmp_path)
    with pytest.raises(RunFolderError, match=r"has no config\.toml"):
        fedkd.load(tmp_path / "nowhere")


def test_warnings_are_shown_where_nobody_else_hears_them(monkeypatch):
    from fedkd.api import showing

    log = logging.getLogger("fedkd")
    monkeypatch.setattr(log, "handlers", [logging.NullHandler()])
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    console = Console(record=True, width=60, file=io.StringIO())
    with showing.phases(console):
        log.warning("a column is far too large")
        log.warning("a column is far too large")
    assert console.export_text().count("warning: a column is far too large") == 1
    assert [type(each) for each in log.handlers] == [logging.NullHandler]


def test_an_old_name_works_and_warns_at_its_line(monkeypatch):
    monkeypatch.setattr(fedkd, "_MOVED", {"run_federation": "simulate"})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert fedkd.run_federation is fedkd.simulate
    [warning] = caught
    assert issubclass(warning.category, FedkdDeprecationWarning)
    assert warning.filename == __file__
    assert "fedkd.run_federation is fedkd.simulate now" in str(warning.message)
