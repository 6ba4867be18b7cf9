import importlib.util

import numpy as np
import pytest
import torch
from rich.console import Console
from small import ignore, small
from torch import nn

from fedkd import config
from fedkd.errors import ExportError, RunFolderError, UsageError
from fedkd.learning import evaluate
from fedkd.runs import export as exporting
from fedkd.runs import student
from fedkd.runs.display import Display
from fedkd.runs.distil import distil
from fedkd.runs.export import export
from fedkd.runs.simulate import simulate

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
    assert done.inputs == len(told.data.test) == 120
    assert done.difference < 1e-4
    for rows in (1, 7, 120):
        x = told.data.test.x[:rows]
        found = answers(done.path, x)
        assert np.allclose(found, evaluate.logits(told.model, x).numpy(), atol=1e-4)


def test_a_file_that_does_not_agree_is_not_written(run, tmp_path, monkeypatch):
    make = exporting._torchscript

    def wrong(model, x):
        content, answer = make(model, x)
        return content, lambda x: answer(x) + 1e-2

    monkeypatch.setattr(exporting, "_torchscript", wrong)
    with pytest.raises(ExportError, match=r"is off by 0.01.*nothing was written"):
        export(run, "torchscript", tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


class Fickle(nn.Module):
    """Answers one input otherwise than many, which tracing does not see."""

    def forward(self, x):
        return x.flatten(1)[:, :3] * (2 if len(x) == 1 else 1)


def test_what_tracing_loses_is_found(run, tmp_path, monkeypatch):
    told = student.load(run)
    monkeypatch.setattr(
        student, "load", lambda _: student.Student("fickle", Fickle().eval(), told.data)
    )
    with pytest.raises(ExportError, match=r"is off by .* on 1 test inputs"):
        export(run, "torchscript", tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


class Unscriptable(nn.Module):
    def forward(self, x):
        raise NotImplementedError("no way")


def test_a_student_that_cannot_be_written_says_why(run, tmp_path, monkeypatch):
    told = student.load(run)
    broken = student.Student("broken", Unscriptable(), told.data)
    monkeypatch.setattr(student, "load", lambda _: broken)
    with pytest.raises(ExportError, match="cannot be written as torchscript: no way"):
        export(run, "torchscript", tmp_path / "file")


def test_missing_packages_are_named_with_the_remedy(run, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if "onnx" in name else found(name)
    )
    with pytest.raises(UsageError, match=r"needs onnx, onnxscript, onnxruntime: pip install 'fed"):
        export(run, "onnx")


def test_the_student_of_a_federation_is_exported_too(rows, tmp_path):
    table = {
        "name": "tiny",
        "data": {"name": str(rows), "partition": {"scheme": "iid"}},
        "clients": {"count": 2, "models": ["mlp"], "training": {"epochs": 1}},
        "student": {"model": "mlp"},
        "method": {"name": "fedavg"},
    }
    with Display(Console(quiet=True), title="tiny", rounds=1) as display:
        simulate(config.parse(table), tmp_path / "run", display)
    done = export(tmp_path / "run", "torchscript")
    assert done.path == tmp_path / "run" / "student.pt"
    assert done.path.is_file()


def test_a_folder_without_a_student_is_refused(run, tmp_path):
    with pytest.raises(RunFolderError, match=r"has no config.toml"):
        export(tmp_path, "torchscript")
    (tmp_path / "config.toml").write_bytes((run / "config.toml").read_bytes())
    with pytest.raises(RunFolderError, match=r"no student.safetensors: the run is unfinished"):
        export(tmp_path, "torchscript")
    (tmp_path / "student.safetensors").write_bytes(b"no tensors")
    with pytest.raises(RunFolderError, match="run it again"):
        export(tmp_path, "torchscript")
