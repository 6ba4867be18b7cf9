"""A student for one view of a record, by teachers who see another: how much of it comes across?

    FEDKD_DATA=... python simulations/cross_modal.py [--seeds 0 1 2]    # tables, in minutes
    FEDKD_DATA=... python simulations/cross_modal.py --write FOLDER     # the file alone

UCI's multiple features: 2,000 handwritten digits, six views of each (pixels, Fourier coefficients,
Zernike moments, Karhunen-Loeve coefficients, profiles, morphology), in `views.npz`, 1,400 to learn
from and 600 to test. 600 of the 1,400 are the proxy set, pairs without labels; 800 have labels,
which teachers see beside their own view.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from fedkd import config
from fedkd.jobs.simulate import simulate

CONFIG = Path(__file__).parents[1] / "fedkd" / "configs" / "cross_modal.toml"
VIEWS = ("pix", "fou", "zer", "kar", "fac", "mor")
ONE = ["clients.count=1", "data.partition.scheme=iid"]
POOLED = ["method.name=centralised", 'clients.views=["zer"]', "clients.training.epochs=60"]
ARMS = {
    "30 labels, no teacher": [*ONE, *POOLED, "data.public.size=1370"],
    "800 labels, no teacher": [*ONE, *POOLED],
    "one pixel teacher, 600 pairs": ONE,
    "three skewed pixel teachers": [],
    "the same, three rounds": ["rounds=3", "method.digest.epochs=5"],
    "three skewed, of unlike views": ['clients.views=[["pix"],["fou"],["kar"]]'],
    "one teacher, epsilon 8": [*ONE, "privacy.epsilon=8"],
}


def write_views(path: Path) -> None:
    """The six views, each an array of the file."""
    folder = Path(os.environ.get("FEDKD_DATA", "")) / "mfeat"
    if not (folder / "mfeat-pix.csv").is_file():
        raise SystemExit(
            f"{folder}: not found; set FEDKD_DATA to the folder above mfeat/ (UCI's data set 72)"
        )
    y = np.repeat(np.arange(10), 200)
    draws = np.random.default_rng(0)
    test = np.concatenate([draws.permutation(200) < 60 for _ in range(10)])  # of each digit
    parts = {"y_train": y[~test], "y_test": y[test]}
    for view in VIEWS:
        columns = np.loadtxt(folder / f"mfeat-{view}.csv", delimiter=",", skiprows=1)
        x = columns[:, :-1].astype(np.float32)
        parts |= {f"x_train.{view}": x[~test], f"x_test.{view}": x[test]}
    np.savez(path, **parts)


def run(folder: Path, name: str, changes: Sequence[str]) -> tuple[float | None, float]:
    """The teachers' mean accuracy, where there are any, and the student's."""
    where = f"data.name={folder / 'views.npz'}"
    summary = simulate(config.load(CONFIG, [where, *changes]), folder / name)
    teachers = summary["teachers"]
    return teachers["mean_accuracy"] if teachers else None, summary["student"]["accuracy"]


def shown(values: Iterable[float | None]) -> str:
    """Figures of several seeds, as their mean and standard deviation."""
    each = [value for value in values if value is not None]
    if not each:
        return "-"
    return f"{statistics.mean(each):.3f} ± {statistics.stdev(each) if len(each) > 1 else 0:.3f}"


def arms(folder: Path, seeds: Sequence[int]) -> None:
    """Print how the student of Zernike moments does, by who taught it."""
    print("| a student of Zernike moments by | teachers | student |\n|---|---|---|")
    for n, (arm, changes) in enumerate(ARMS.items()):
        found = [run(folder, f"arm-{n}-{s}", [*changes, f"seed={s}"]) for s in seeds]
        teachers, students = zip(*found, strict=True)
        print(f"| {arm} | {shown(teachers)} | {shown(students)} |", flush=True)


def crossed(folder: Path, seeds: Sequence[int], views: Sequence[str]) -> None:
    """Print the student's accuracy by the view of the one teacher, a row, and by its own."""
    print(f"\n| teacher sees | {' | '.join(views)} |\n|---|{'---|' * len(views)}")
    for teacher in views:
        cells = []
        for own in views:
            sees = [*ONE, f'clients.views=["{teacher}"]', f'student.views=["{own}"]']
            found = [run(folder, f"cross-{teacher}-{own}-{s}", [*sees, f"seed={s}"]) for s in seeds]
            cells.append(shown(student for _, student in found))
        print(f"| {teacher} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Run everything and print the tables, or write the files alone."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--views", nargs="+", default=list(VIEWS), choices=VIEWS)
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.write or Path(temporary)
        write_views(folder / "views.npz")
        if given.write is None:
            arms(folder, given.seeds)
            crossed(folder, given.seeds[:1], given.views)


if __name__ == "__main__":
    main()
