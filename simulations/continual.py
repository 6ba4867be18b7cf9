"""Five tasks of two classes, one after the other: what does a student forget, and a federation?

    FEDKD_DATA=... python simulations/continual.py [--seeds 0 1 2] [--data cifar mnist]

`cifar` is the CIFAR-10 subset of FEDKD_DATA, 5,085 + 1,017 images (`cifar10_6k.npz`), `mnist` the
first 6,000 + 2,000 images of MNIST. LeNet-5, a head a task: an image's task is told. Beside the
student that learns without forgetting: `joint`, of all tasks at once, `finetuned`, which is
reminded of nothing, and five clients with `fedlwf`, each task dealt by Dirichlet with alpha 1.
What is printed is the mean and deviation over seeds of the average accuracy after the last task,
and of forgetting.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedkd import config, data
from fedkd.config import Source
from fedkd.jobs.distil import distil
from fedkd.jobs.simulate import simulate

CONFIGS = Path(__file__).parents[1] / "fedkd" / "configs"
ALONE = (
    "student.training.epochs=8",
    "student.training.schedule='cosine'",
    "student.training.clip_norm=1",
)
TOGETHER = (
    "rounds=15",
    "data.stream.rounds=3",
    "clients.training.epochs=8",
    "clients.training.batch_size=16",
    "clients.training.clip_norm=1",
)
"""Both tuned on held-out training images, see docs/applications/continual.md."""


def file_of(name: str, folder: Path) -> Path:
    """The images of a study as an .npz file."""
    if name == "cifar":
        path = Path(os.environ.get("FEDKD_DATA", "")) / "cifar10_6k.npz"
        if not path.is_file():
            raise SystemExit(f"{path}: not found; set FEDKD_DATA to the folder that has it")
        return path
    found = data.load(Source(name="mnist"), seed=0)
    few = {"train": (found.train, 6000), "test": (found.test, 2000)}
    path = folder / "mnist.npz"
    arrays = {f"x_{part}": each.x[np.arange(n)].numpy() for part, (each, n) in few.items()}
    arrays |= {f"y_{part}": each.y[:n].numpy() for part, (each, n) in few.items()}
    np.savez(path, **arrays)
    return path


def figures(told: dict[str, Any]) -> tuple[float, float]:
    """Average accuracy after the last task, and forgetting."""
    return told["average"], told["forgetting"]


def run(file: Path, seed: int, folder: Path) -> dict[str, tuple[float, float]]:
    """What each learner comes to with one seed."""
    common = (f"data.name={file}", f"seed={seed}")
    alone = distil(
        config.load_distillation(CONFIGS / "continual.toml", [*common, *ALONE]),
        folder / f"alone-{file.stem}-{seed}",
    )["continual"]
    together = simulate(
        config.load(CONFIGS / "federated_continual.toml", [*common, *TOGETHER]),
        folder / f"together-{file.stem}-{seed}",
    )["continual"]
    return {
        "joint": (statistics.mean(alone["joint"]), 0.0),
        "finetuned": figures(alone["finetuned"]),
        "without forgetting": figures(alone),
        "fedlwf, five clients": figures(together),
    }


def shown(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds."""
    spread = statistics.stdev(values) if len(values) > 1 else 0
    return f"{statistics.mean(values):.3f} ± {spread:.3f}"


def table(name: str, seeds: Sequence[int], folder: Path) -> None:
    """Print a data set's figures as a table of Markdown."""
    file = file_of(name, folder)
    runs = []
    for seed in seeds:
        runs.append(run(file, seed, folder))
        print(name, seed, runs[-1], flush=True)
    print(f"\n| {name} | accuracy | forgetting |\n|---|---|---|")
    for learner in runs[0]:
        both = zip(*(each[learner] for each in runs), strict=True)
        cells = [shown(values) for values in both]
        print(f"| {learner} | {' | '.join(cells)} |")


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", nargs="+", default=["cifar", "mnist"], choices=["cifar", "mnist"])
    parser.add_argument("--out", type=Path, help="where run folders stay; nowhere unless given")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.out or Path(temporary)
        for name in given.data:
            table(name, given.seeds, folder)


if __name__ == "__main__":
    main()
