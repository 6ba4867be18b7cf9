import importlib.util
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from small import ignore, small
from torch import nn

from fedkd import config
from fedkd.errors import DataError, ExportError, RunFolderError, UsageError
from fedkd.jobs import export as exporting
from fedkd.jobs import metadata
from fedkd.jobs.distil import distil
from fedkd.jobs.export import export
from fedkd.jobs.simulate import simulate
from fedkd.learning import evaluate
from fedkd.reports.display import Display
from fedkd.runs import student

ONNX = importlib.util.find_spec("onnxruntime") is not None
needs_onnx = pytest.mark.skipif(not ONNX, reason="the extra 'onnx' is not installed")
FORMATS = ["torchscript", pytest.param("onnx", marks=needs_onnx)]
BLOCK = {"name": "injection", "layer": "norm", "block": "norm1"}


@pytest.fixture(scope="module")
def run(squares, tmp_path_factory):
    """A student with BatchNorm, pooling and a teacher's block in it."""
    folder = tmp_path_factory.mktemp("export") / "run"
    models = {
        "teachers": [{"model": "dense-cnn", "training": {"epochs": 1}}],
        "student": {"model": {"name": "resnet8", "width": 2}, "training": {"epochs": 1}},
    }
    distil(small(squares, plain=False, way=BLOCK, knowledge=[], **models), folder, ignore)
    return folder


def answers(path, x):
    """What the file says, asked by its own runtime."""
    if path.suffix == ".onnx":
        import onnxruntime

        return onnxruntime.InferenceSession(path).run(None, {"inputs": x.numpy()})[0]
    return torch.jit.load(path)(x).numpy()


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("format", FORMATS)
def test_the_file_says_what_the_student_says_for_any_number_of_inputs(run, tmp_path, format):
    done = export(run, format, tmp_path / "deep" / f"file{exporting.FORMATS[format]}")
    told = student.load(run)
    x_test = student.tests(run, told)
    assert done.tests == 100  # of 120
    assert done.inputs == 300
    assert done.difference < 1e-4
    for rows in (1, 7, 120):
        x = x_test[:rows]
        found = answers(done.path, x)
        assert np.allclose(found, evaluate.answers(told.model, x).numpy(), atol=1e-4)
    about = metadata_of(done.path)  # with the file alone one knows what goes in and comes out
    assert (about["task"], about["inputs"]["shape"]) == ("classification", list(told.shape))
    assert about["answer"]["names"] == list(told.class_names) == ["0", "1", "2"]
    assert "softmax" in about["answer"]["meaning"]


def metadata_of(path):
    """What the file says of itself."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        return json.loads(session.get_modelmeta().custom_metadata_map[metadata.PROPERTY])
    files = {metadata.EXTRA_FILE: ""}
    torch.jit.load(path, _extra_files=files)
    return json.loads(files[metadata.EXTRA_FILE])


def test_a_file_that_does_not_agree_is_not_written(run, tmp_path, monkeypatch):
    make = exporting._torchscript

    def wrong(model, x, about):
        content, answer = make(model, x, about)
        return content, lambda x: answer(x) + 1e-2

    monkeypatch.setattr(exporting, "_torchscript", wrong)
    with pytest.raises(ExportError, match=r"is off by 0.01.*nothing was written"):
        export(run, "torchscript", tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def exports(run, tmp_path, monkeypatch):
    """Export a model in place of the run's student."""
    told = student.load(run)

    def written(model, format):
        model.requires_grad_(requires_grad=False).eval()
        monkeypatch.setattr(student, "load", lambda _: replace(told, model=model))
        return export(run, format, tmp_path / f"file{exporting.FORMATS[format]}")

    yield written
    assert all("tmp" not in each.name for each in tmp_path.iterdir())


class Branch(nn.Module):
    """Adds or takes away, by something of the batch that it is asked about."""

    def __init__(self, choose):
        super().__init__()
        self.choose = choose

    def forward(self, x):
        logits = x.flatten(1)[:, :3]
        return logits + 1 if self.choose(x) else logits - 1


def secretly(x):
    return False if torch.jit.is_tracing() or torch.compiler.is_exporting() else len(x) == 7


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("choose", [lambda x: x.mean() > 0.3, lambda x: float(x[0].sum()) > 1])
def test_a_choice_by_the_batch_is_refused_with_its_line_and_the_remedy(
    exports, tmp_path, capfd, choose, format
):
    with pytest.raises(UsageError) as refused:
        exports(Branch(choose), format)
    said = str(refused.value)
    assert re.match(rf"the student cannot be written as {format}: .*test_export.py, line \d+", said)
    assert "compute it by tensors, such as torch.where" in said
    assert "\n" not in said
    assert refused.value.exit_status == 2
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


class Checked(nn.Module):
    def forward(self, x):
        if x.shape[2] != 8:
            raise ValueError
        return x.flatten(1)[:, :3]


class Counted(nn.Module):
    def forward(self, x):
        return x.reshape(len(x), -1)[:, :3]


def test_sizes_are_no_decision_of_a_batch_and_their_remedy_is_another(exports):
    with pytest.raises(UsageError, match="if it only checks sizes, --format onnx allows it"):
        exports(Checked(), "torchscript")
    with pytest.raises(UsageError, match=r"line \d+\) asks for len\(x\), .*: write x\.shape\[0\]$"):
        exports(Counted(), "torchscript")


@pytest.mark.parametrize("format", FORMATS)
def test_a_choice_that_nothing_warns_of_is_found(exports, tmp_path, format):
    with pytest.raises(ExportError, match=r"is off by 2 on 7 inputs"):
        exports(Branch(secretly), format)
    assert list(tmp_path.iterdir()) == []


def test_torchs_own_layers_are_no_choice_of_the_batch(exports):
    norm = nn.Sequential(nn.GroupNorm(1, 1), nn.Flatten(), nn.Linear(64, 3))
    assert exports(norm, "torchscript").difference < 1e-4


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("format", FORMATS)
def test_a_student_that_overwrites_its_inputs_is_a_file_that_does_not(exports, format):
    torch.manual_seed(0)
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 3))
    done = exports(model, format)
    x = torch.randn(5, 1, 8, 8)
    before = x.clone()
    assert np.allclose(answers(done.path, x), model(x.clone()).numpy(), atol=1e-5)
    assert torch.equal(x, before)


class Wrapped(nn.Module):
    """As of Hugging Face: logits under a name, beside something else."""

    def forward(self, x):
        return {"hidden": x, "logits": x.flatten(1)[:, :3]}


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("format", FORMATS)
def test_a_student_that_wraps_its_logits_is_a_file_that_gives_them(exports, format):
    x = torch.rand(4, 1, 8, 8)
    assert np.allclose(answers(exports(Wrapped(), format).path, x), x.flatten(1)[:, :3].numpy())


class Unscriptable(nn.Module):
    def forward(self, x):
        raise NotImplementedError("no way")


def test_a_student_that_fails_says_why(exports, tmp_path):
    with pytest.raises(ExportError, match="the student fails on its inputs: no way"):
        exports(Unscriptable(), "torchscript")


def test_missing_packages_are_named_with_the_remedy(run, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if "onnx" in name else found(name)
    )
    with pytest.raises(UsageError, match=r"needs onnx, onnxscript, onnxruntime: pip install 'fed"):
        export(run, "onnx")


def test_the_student_of_a_federation_is_exported_too_without_its_data(rows, tmp_path):
    data = Path(shutil.copy(rows, tmp_path / "rows.npz"))
    table = {
        "name": "tiny",
        "data": {"name": str(data), "partition": {"scheme": "iid"}},
        "clients": {"count": 2, "models": ["mlp"], "training": {"epochs": 1}},
        "student": {"model": "mlp"},
        "method": {"name": "fedavg"},
    }
    with Display(Console(quiet=True), title="tiny", rounds=1) as display:
        simulate(config.parse(table), tmp_path / "run", display)
    data.unlink()
    done = export(tmp_path / "run", "torchscript")
    assert done.path == tmp_path / "run" / "student.pt"
    assert done.path.is_file()
    assert done.tests == 0
    assert "rows.npz: No such file" in done.untested
    with np.load(rows) as arrays:
        changed = dict(arrays)
    changed["y_train"] += changed["y_train"] == changed["y_train"].max()  # a class more
    np.savez(data, **changed)
    assert "the student was made for" in export(tmp_path / "run", "torchscript").untested


def test_a_student_is_loaded_and_exported_where_its_data_is_not(squares, tmp_path):
    """Of a way that cuts images down, and whose teachers see them whole."""
    data = Path(shutil.copy(squares, tmp_path / "here.npz"))
    way = {"name": "privileged", "side": 4, "blind": []}
    distil(small(data, plain=False, way=way, knowledge=[]), tmp_path / "run", ignore)
    here = student.load(tmp_path / "run")
    data.unlink()
    there = student.load(tmp_path / "run")
    assert there.shape == (1, 4, 4)
    assert there.class_names == here.class_names == ("0", "1", "2")
    state = here.model.state_dict()
    assert all(torch.equal(each, state[key]) for key, each in there.model.state_dict().items())
    done = export(tmp_path / "run", "torchscript")
    assert (done.tests, done.inputs) == (0, 200)
    # A run made before its summary said what its models see needs the data.
    summary = tmp_path / "run" / "summary.json"
    told = json.loads(summary.read_text())
    del told["inputs"]
    summary.write_text(json.dumps(told))
    with pytest.raises(DataError, match=r"here.npz"):
        student.load(tmp_path / "run")
    shutil.copy(squares, data)
    assert student.load(tmp_path / "run").shape == (1, 4, 4)


def test_a_folder_without_a_student_is_refused(run, tmp_path):
    with pytest.raises(RunFolderError, match=r"has no config.toml"):
        export(tmp_path, "torchscript")
    (tmp_path / "config.toml").write_bytes((run / "config.toml").read_bytes())
    with pytest.raises(RunFolderError, match=r"no student.safetensors: the run is unfinished"):
        export(tmp_path, "torchscript")
    (tmp_path / "student.safetensors").write_bytes(b"no tensors")
    with pytest.raises(RunFolderError, match="run it again"):
        export(tmp_path, "torchscript")
