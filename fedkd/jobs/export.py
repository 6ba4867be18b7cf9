"""A run's student as a file for other programs, checked against the original."""

import importlib.util
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from fedkd.errors import ConfigError, DataError, ExportError, UsageError
from fedkd.files import make_folder, write_atomically
from fedkd.jobs import metadata
from fedkd.models import call, probes
from fedkd.names import unknown
from fedkd.rows import Rows, first, whole
from fedkd.runs import student, tokenizers
from fedkd.runs.student import FinishedStudent
from fedkd.tasks import Task

Format = Literal["onnx", "torchscript"]
Answer = Callable[[Tensor], Tensor]
"""What an exported model says: inputs (N, *shape) to logits (N, C)."""

FORMATS: dict[Format, str] = {"onnx": ".onnx", "torchscript": ".pt"}
"""Formats and their files' endings."""
_TOLERANCE = 1e-4
_OF_A_KIND = 100
_TORCH = Path(torch.__file__).parent
_ONNX = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        difference: the largest absolute difference of a logit from the original's.
        inputs: how many inputs were asked.
        tests: how many of them are of the run's test set; 0 where its data is not here.
        untested: why none of them is; empty if some are.
        scaled: how many columns of a row stand on a scale, which `inputs.scale` of the run's
            summary.json has.
    """

    path: Path
    difference: float
    inputs: int
    tests: int
    untested: str
    scaled: int


def export(run: Path, format: Format, out: Path | None = None) -> Exported:
    """Write a run's student in another format.

    The file takes inputs (N, *shape) for any N >= 1, writes into none, and gives logits. Of texts
    inputs are token numbers, int64, of any length where a text as a whole has one answer, and the
    tokeniser is written beside it as `tokenizer.json`. What its inputs and answers are stands in
    its own metadata (`fedkd.jobs.metadata`). It is left
    only if it agrees with the original on drawn inputs, and on test inputs where the run's data is
    here: on each alone, on all together, in another order, and in smaller batches.

    Args:
        run: a finished run's folder.
        format: `onnx` or `torchscript`.
        out: the file; None: `student.onnx` or `student.pt` in the run folder.

    Raises:
        UsageError: no such format, it is no finished run, packages are missing, or the student
            takes a decision by the values of a batch, which a file would take once for all.
        ExportError: the student cannot be exported, or the export does not agree with it.
    """
    if format not in FORMATS:
        raise UsageError(unknown("format", format, FORMATS))
    finished = student.load(run)
    tests, untested = None, ""
    try:
        tests = student.tests(run, finished)
    except (ConfigError, DataError) as error:
        untested = str(error)
    try:
        with torch.no_grad():
            x = _inputs(finished, tests)
    except Exception as error:  # whatever a user's own model raises
        raise ExportError(f"the student fails on its inputs: {_reason(error)}") from error
    asking, texts = _Answering(finished.model).eval(), finished.tokenizer
    told = metadata.about(finished)
    shorter = texts is not None and _of_any_length(finished.task)
    if format == "onnx":
        content, answer = _onnx(asking, x, told, any_length=shorter)
    elif texts is None:
        content, answer = _torchscript(asking, x, told)
    else:
        raise UsageError(
            "format 'torchscript' would keep the length of one batch of texts for all: choose onnx"
        )
    difference = _difference(finished.model, answer, x, format)
    if shorter:
        few = x[:, : max(1, x.shape[1] // 2)]
        difference = max(difference, _difference(finished.model, answer, few, format))
    path = out or run / f"student{FORMATS[format]}"
    make_folder(path.parent)
    write_atomically(path, content)
    if texts is not None:
        write_atomically(path.with_name(tokenizers.FILE), texts.content)
    asked = 0 if tests is None else min(_OF_A_KIND, len(tests))
    return Exported(path, difference, len(x), asked, untested, len(finished.scale))


def _inputs(finished: FinishedStudent, tests: Rows | None) -> Tensor:
    """What the student and its file are asked: inputs (M, *shape) of several kinds."""
    if (words := finished.task.vocabulary) is None:
        return probes.inputs(finished.model, finished.shape, tests, each=_OF_A_KIND)
    drawn = probes.texts(words, finished.shape, count=_OF_A_KIND)
    return drawn if tests is None else torch.cat([whole(first(tests, _OF_A_KIND)), drawn])


def _of_any_length(task: Task) -> bool:
    """Whether a text of fewer tokens than a record has may be asked as it is, without padding."""
    return len(task.inputs) == 1 and task.targets in ("classes", "binary", "numbers")


class _Answering(nn.Module):
    """A model as fedkd asks it: it gets a copy of its inputs, and its logits are unwrapped."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return call.answer(self.model, x)


@torch.no_grad()
def _difference(model: nn.Module, answer: Answer, x: Tensor, format: Format) -> float:
    """The largest difference of a logit, asked each alone, all together and in other batches."""
    largest = 0.0
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    for batch in (*torch.split(x, 1), x, x[order], *torch.split(x[order], 7)):
        wanted = call.answer(model, batch)
        try:
            found = answer(batch.clone())
        except Exception as error:  # whatever the other runtime raises
            raise ExportError(
                f"the student as {format} fails on {len(batch)} inputs: {_reason(error)}"
            ) from error
        gap = (found - wanted).abs().max().item() if found.shape == wanted.shape else float("inf")
        allowed = _TOLERANCE * max(1.0, wanted.abs().max().item())
        if not gap <= allowed:
            raise ExportError(
                f"the student as {format} is off by {gap:.3g} on {len(batch)} inputs: "
                f"expected at most {allowed:.3g}; nothing was written"
            )
        largest = max(largest, gap)
    return largest


def _onnx(model: nn.Module, x: Tensor, about: str, *, any_length: bool) -> tuple[bytes, Answer]:
    missing = [name for name in _ONNX if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"format 'onnx' needs {', '.join(missing)}: pip install 'fedkd[onnx]', or choose "
            "torchscript"
        )
    import onnxruntime

    free = {0: torch.export.Dim("batch", min=1)}
    if any_length:
        free[1] = torch.export.Dim("length", min=1)
    try:
        with _quiet("torch.onnx"):
            program = torch.onnx.export(
                model,
                (x[:2].clone(),),
                input_names=["inputs"],
                output_names=["logits"],
                dynamic_shapes=(free,),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # whatever the exporter meets in a user's own model
        cause = str(error.__cause__)
        if "data-dependent" in cause:
            place = re.findall(r'File "(.+)", line (\d+), in', cause)
            raise _depends_on_data("onnx", *(place[-1] if place else ("", ""))) from error
        raise ExportError(f"the student cannot be written as onnx: {_reason(error)}") from error
    if program is None:
        raise ExportError("the student cannot be written as onnx: the exporter gave nothing")
    proto = program.model_proto
    proto.metadata_props.add(key=metadata.PROPERTY, value=about)
    content = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, lambda x: torch.from_numpy(session.run(["logits"], {"inputs": x.numpy()})[0])


def _torchscript(model: nn.Module, x: Tensor, about: str) -> tuple[bytes, Answer]:
    file = io.BytesIO()
    try:
        # torch makes no new features for TorchScript, and still writes and reads it.
        with _quiet("torch.jit"):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                # torch would trace again and compare graphs; what matters is what they answer.
                traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                    model, x[:2], check_trace=False
                )
            torch.jit.save(traced, file, {metadata.EXTRA_FILE: about})
            content = file.getvalue()
            loaded = torch.jit.load(io.BytesIO(content))  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever tracing meets in a user's own model
        raise ExportError(
            f"the student cannot be written as torchscript: {_reason(error)}"
        ) from error
    for each in caught:
        # torch's own layers look at sizes, which is no harm.
        if issubclass(each.category, TracerWarning) and _TORCH not in Path(each.filename).parents:
            raise _depends_on_data(
                "torchscript", each.filename, str(each.lineno), str(each.message)
            )
    return content, loaded


def _depends_on_data(format: Format, file: str, line: str, warning: str = "") -> UsageError:
    where = f" ({Path(file).name}, line {line})" if file else ""
    if "Using len" in warning:
        return UsageError(
            f"the student cannot be written as {format}: its forward pass{where} asks for len(x), "
            "which the file would keep of one batch for all: write x.shape[0]"
        )
    # Tracing shows a size as a tensor: a check of sizes and one of values look alike.
    sizes = "; if it only checks sizes, --format onnx allows it" if format != "onnx" else ""
    return UsageError(
        f"the student cannot be written as {format}: its forward pass{where} takes a number or a "
        "decision out of a batch into Python, and the file would keep that of one batch for all; "
        "compute it by tensors, such as torch.where for each input, and take sizes from "
        f"x.shape{sizes}"
    )


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Without what torch says in passing of parts of it that are not ours to choose."""
    log = logging.getLogger(logger)
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
