"""A run's student as a file for other programs, checked against the original on real inputs."""

import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from fedkd.errors import ExportError, UsageError
from fedkd.files import make_folder, write_atomically
from fedkd.runs import student

Format = Literal["onnx", "torchscript"]
Answer = Callable[[Tensor], Tensor]
"""What an exported model says: inputs (N, *shape) to logits (N, C)."""

FORMATS: dict[Format, str] = {"onnx": ".onnx", "torchscript": ".pt"}
"""Formats and their files' endings."""
_TOLERANCE = 1e-4
_INPUTS = 500
_ONNX = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        difference: the largest absolute difference of a logit from the original's.
        inputs: how many test inputs were asked.
    """

    path: Path
    difference: float
    inputs: int


def export(run: Path, format: Format, out: Path | None = None) -> Exported:
    """Write a run's student in another format.

    The file takes inputs (N, *shape) for any N >= 1 and gives logits. Nothing is written unless it
    agrees with the original on the run's own test inputs, alone and together.

    Args:
        run: a finished run's folder.
        format: `onnx` or `torchscript`.
        out: the file; None: `student.onnx` or `student.pt` in the run folder.

    Raises:
        UsageError: it is no finished run, its data is not here, or packages are missing.
        ExportError: the student cannot be exported, or the export does not agree with it.
    """
    told = student.load(run)
    x = told.data.test.x[:_INPUTS]
    content, answer = (_onnx if format == "onnx" else _torchscript)(told.model, x)
    difference = _difference(told.model, answer, x, format)
    path = out or run / f"student{FORMATS[format]}"
    make_folder(path.parent)
    write_atomically(path, content)
    return Exported(path, difference, len(x))


@torch.no_grad()
def _difference(model: nn.Module, answer: Answer, x: Tensor, format: Format) -> float:
    """The largest difference of a logit, asked one input alone and all together."""
    largest = 0.0
    for batch in (x[:1], x[-1:], x):
        wanted = model(batch)
        try:
            found = answer(batch)
        except Exception as error:  # whatever the other runtime raises
            raise ExportError(
                f"the student as {format} fails on {len(batch)} inputs: {_reason(error)}"
            ) from error
        gap = (found - wanted).abs().max().item() if found.shape == wanted.shape else float("inf")
        allowed = _TOLERANCE * max(1.0, wanted.abs().max().item())
        if not gap <= allowed:
            raise ExportError(
                f"the student as {format} is off by {gap:.3g} on {len(batch)} test inputs: "
                f"expected at most {allowed:.3g}; nothing was written"
            )
        largest = max(largest, gap)
    return largest


def _onnx(model: nn.Module, x: Tensor) -> tuple[bytes, Answer]:
    missing = [name for name in _ONNX if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"format 'onnx' needs {', '.join(missing)}: pip install 'fedkd[onnx]', or choose "
            "torchscript"
        )
    import onnxruntime

    try:
        with _quiet("torch.onnx"):
            program = torch.onnx.export(
                model,
                (x[:2],),
                input_names=["inputs"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # whatever the exporter meets in a user's own model
        raise ExportError(f"the student cannot be written as onnx: {_reason(error)}") from error
    if program is None:
        raise ExportError("the student cannot be written as onnx: the exporter gave nothing")
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, lambda x: torch.from_numpy(session.run(["logits"], {"inputs": x.numpy()})[0])


def _torchscript(model: nn.Module, x: Tensor) -> tuple[bytes, Answer]:
    file = io.BytesIO()
    try:
        # torch makes no new features for TorchScript, and still writes and reads it.
        with _quiet("torch.jit"):
            torch.jit.save(torch.jit.trace(model, x[:2]), file)  # type: ignore[no-untyped-call]
            content = file.getvalue()
            loaded = torch.jit.load(io.BytesIO(content))  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever tracing meets in a user's own model
        raise ExportError(
            f"the student cannot be written as torchscript: {_reason(error)}"
        ) from error
    return content, loaded


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Without warnings and log lines of torch about parts of it that are not ours to choose."""
    own = logging.getLogger(logger)
    before = own.level
    own.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        own.setLevel(before)


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
