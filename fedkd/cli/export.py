"""`fedkd export`: a run's student as a file for other programs."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from fedkd.cli.common import Run, answer, import_beside, line


def export(
    run: Run,
    *,
    format: Annotated[Literal["onnx", "torchscript"], typer.Option(help="onnx or torchscript.")],
    file: Annotated[
        Path | None,
        typer.Option("--out", help="The file.", show_default="RUN/student.onnx or .pt"),
    ] = None,
) -> None:
    """Write a run's student for other programs, checked against the original.

    Example: fedkd export runs/demo --format onnx
    """
    from fedkd.jobs.export import export as write

    import_beside(run)
    done = write(run, format, file)
    none = f"none of the test set ({done.untested})"
    tests = f"{done.tests} of them of the test set" if done.tests else none
    lines = [
        f"agrees with the original on {done.inputs} inputs, {tests}, alone and in batches: logits "
        f"differ by at most {done.difference:.2g}"
    ]
    if done.scaled:
        lines.append(f"inputs: {done.scaled} columns scaled by inputs.scale in {run}/summary.json")
    lines.append(f"student: {done.path.resolve()}")
    answer(asdict(done), *map(line, lines))
