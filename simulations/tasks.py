"""Federated regression and multi-label classification on real tables: what is the student worth?

    FEDKD_DATA=... python simulations/tasks.py [--seeds 0 1 2]     # a table, in minutes
    FEDKD_DATA=... python simulations/tasks.py --write FOLDER      # the tables' files alone

`regression.toml` is of scikit-learn's diabetes, 442 patients. `multi_label.toml` is
of UCI's multiple features, 2,000 handwritten digits. The labels are drawn up here, five properties
of the digit, for want of a real multi-label table that may be had; inputs are Fourier coefficients
of its outline, which hardly tell a 6 from a 9.

Of each method the student, the mean of the clients' own models, and one model that is trained on
all private records, for as many epochs. `fedmd` runs as the two files say, the others by their
defaults.
"""

import argparse
import csv
import os
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from sklearn.datasets import load_diabetes

from fedkd import config
from fedkd.jobs.simulate import simulate

CONFIGS = Path(__file__).parents[1] / "fedkd" / "configs"
METHODS = ("fedmd", "fedavg", "feddf")
SHOWN = {"regression": ("rmse", "r2"), "multi_label": ("macro_f1", "auroc")}
LABELS = {
    "even": (0, 2, 4, 6, 8),
    "prime": (2, 3, 5, 7),
    "square": (0, 1, 4, 9),
    "above 4": (5, 6, 7, 8, 9),
    "loop": (0, 6, 8, 9),
}


def write_diabetes(path: Path) -> None:
    """Ten measurements and the progression of the disease, as they were measured."""
    found = load_diabetes(scaled=False)
    header = [*found.feature_names, "progression"]
    _write(path, header, np.column_stack([found.data, found.target]).tolist())


def write_digits(path: Path) -> None:
    """Fourier coefficients of digits, and properties of the digit."""
    folder = os.environ.get("FEDKD_DATA", "")
    source = Path(folder) / "mfeat" / "mfeat-fou.csv"
    if not source.is_file():
        raise SystemExit(
            f"{source}: not found; set FEDKD_DATA to the folder above mfeat/ (UCI's data set 72)"
        )
    columns = np.loadtxt(source, delimiter=",", skiprows=1)
    inputs, digits = columns[:, :-1], columns[:, -1].astype(int)
    header = [*(f"fourier{n}" for n in range(inputs.shape[1])), *LABELS]
    labels = [[int(digit in own) for own in LABELS.values()] for digit in digits.tolist()]
    rows = ([*row, *own] for row, own in zip(inputs.tolist(), labels, strict=True))
    _write(path, header, rows)


FILES = {"diabetes.csv": write_diabetes, "digits.csv": write_digits}


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[float]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def run(task: str, method: str, seed: int, folder: Path) -> dict[str, list[float]]:
    """Of one run, the figures of its teachers' mean and of its student, in the order of `SHOWN`."""
    file = CONFIGS / f"{task}.toml"
    example = config.load(file)
    changes = [f"data.name={folder / example.data.name}", f"seed={seed}"]
    if method != example.method.name:  # or what the file says of it would be forgotten
        changes.append(f"method.name={method}")
    summary = simulate(config.load(file, changes), folder / f"{task}-{method}-{seed}")
    teachers, student = summary["teachers"] or {}, summary["student"]
    return {
        "teachers": [teachers[f"mean_{figure}"] for figure in SHOWN[task] if teachers],
        "student": [student[figure] for figure in SHOWN[task]],
    }


def shown(values: Iterable[Sequence[float]]) -> list[str]:
    """Figures of several seeds, as their mean and standard deviation."""
    return [
        f"{statistics.mean(each):.3g} ± {statistics.stdev(each) if len(each) > 1 else 0:.2g}"
        for each in zip(*values, strict=True)
    ]


def table(task: str, seeds: Sequence[int], folder: Path) -> None:
    """Print a task's figures as a table of Markdown."""
    figures = SHOWN[task]
    pooled = shown(run(task, "centralised", seed, folder)["student"] for seed in seeds)
    heads = [f"{who}: {figure}" for figure in figures for who in ("teachers", "student", "pooled")]
    print(f"\n| {task} | {' | '.join(heads)} |")
    print(f"|---|{'---|' * len(heads)}")
    for method in METHODS:
        runs = [run(task, method, seed, folder) for seed in seeds]
        both = [shown(each[who] for each in runs) for who in ("teachers", "student")]
        columns = zip(*both, pooled, strict=True)
        print(f"| `{method}` | {' | '.join(cell for column in columns for cell in column)} |")


def main() -> None:
    """Run everything and print the tables, or write the files alone."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.write or Path(temporary)
        for name, write in FILES.items():
            write(folder / name)
        if given.write is None:
            for task in SHOWN:
                table(task, given.seeds, folder)


if __name__ == "__main__":
    main()
