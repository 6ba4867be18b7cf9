"""Run every case in a process whose arithmetic is the same on every x86 processor.

As a program it prints, as JSON, the digests of the probe, of the files and of each case. Only this
file knows which functions of fedkd run a configuration.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GOLDENS = HERE / "goldens.json"
EVEN = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "MKL_DYNAMIC": "FALSE",
    "MKL_NUM_THREADS": "1",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_CORETYPE": "NEHALEM",
    "OPENBLAS_NUM_THREADS": "1",
}
"""Read as torch, MKL, numpy and OpenBLAS are loaded: the plainest code that each of them has."""


def measure() -> dict[str, Any]:
    """What this checkout gives, from a fresh process."""
    taken = ("MKL_", "ATEN_", "NPY_", "OPENBLAS_", "OMP_", "KMP_", "GOMP_", "PYTHONWARNINGS")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(taken)}
    paths = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, HERE, HERE.parent)))}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(__file__).resolve())]
        done = subprocess.run(
            command,
            env={**kept, **EVEN, **paths},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"The goldens did not run:\n{done.stderr}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _here(folder: Path) -> dict[str, Any]:
    import numpy as np
    import scipy
    import torch

    # oneDNN and NNPACK choose their code by the processor; without them convolutions are MKL's.
    torch.backends.mkldnn.set_flags(False)
    torch.backends.nnpack.set_flags(False)
    from golden_cases import CASES, write_files
    from golden_probe import probe

    measured: dict[str, Any] = {
        "versions": {each.__name__: each.__version__ for each in (np, scipy, torch)},
        "probe": probe(),
    }
    draw_nothing()
    files = write_files(folder)
    measured["files"] = {name: _content(path) for name, path in files.items()}
    measured["cases"] = {
        name: _digests(command, table, files[file], folder / name)
        for name, (command, file, table) in CASES.items()
    }
    return measured


def draw_nothing() -> None:
    """Charts are most of the time of so small a run, and not what is recorded here.

    Nor is how fast a model is.
    """
    from markupsafe import Markup

    from fedkd.reports.charts import drawing
    from fedkd.runs import model_size

    drawing._svg = lambda *_: Markup()
    model_size._REPEATS = 1


def _content(path: Path) -> str:
    """Of the arrays of an .npz file, whose own bytes tell the time; else of the bytes."""
    import numpy as np

    if path.suffix != ".npz":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    sha = hashlib.sha256()
    with np.load(path) as arrays:
        for name in sorted(arrays):
            sha.update(name.encode() + arrays[name].tobytes())
    return sha.hexdigest()


def _digests(command: str, table: dict[str, Any], file: Path, run: Path) -> dict[str, str]:
    table = {**table, "data": {**table.get("data", {}), "name": str(file)}}
    try:
        _run(command, table, run)
        student = hashlib.sha256((run / "student.safetensors").read_bytes()).hexdigest()
        return {"student": student, "rounds": _rounds(run / "rounds.jsonl")}
    except Exception as error:  # noqa: BLE001 - the others go on
        return {"error": f"{type(error).__name__}: {error}"}


def _run(command: str, table: dict[str, Any], run: Path) -> None:
    import tiny

    from fedkd import config
    from fedkd.jobs.distil import distil
    from fedkd.jobs.simulate import simulate

    if command == "simulate":
        simulate(config.parse(table), run, tiny.Quiet())
    else:
        distil(config.validate(config.Distillation, table), run)


def _rounds(path: Path) -> str:
    """Of all lines but for what tells the time, whatever the order of their keys."""
    sha = hashlib.sha256()
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        record.pop("seconds")
        sha.update(json.dumps(record, sort_keys=True).encode() + b"\n")
    return sha.hexdigest()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as _folder:
        sys.stdout.write("\n" + json.dumps(_here(Path(_folder))) + "\n")
