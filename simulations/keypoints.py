"""Joints of drawn figures: fast pose distillation, and a federation of four unlike sites.

    python simulations/keypoints.py [--seeds 0 1 2] [--out runs/keypoints]

`keypoints_distil.toml` has one party's teacher, its student, and the student alone, which
learns from the same labels. In `keypoints.toml` four sites' teachers answer on unlabelled
figures for a student; beside it one of the same model that learns from all private labels.

A seed draws the figures too. A run that is there already is not run again.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedkd import config
from fedkd.jobs.distil import distil
from fedkd.jobs.simulate import simulate

CONFIGS = Path(__file__).parents[1] / "fedkd" / "configs"
FIGURES = ("pck", "nme")
Row = Mapping[str, float]


def _kept(folder: Path) -> dict[str, Any] | None:
    file = folder / "summary.json"
    found: dict[str, Any] | None = json.loads(file.read_text("utf-8")) if file.is_file() else None
    return found


def distilled(seed: int, folder: Path) -> dict[str, Row]:
    """One party: the teacher, the student alone and the distilled one."""
    own = folder / f"distil-{seed}"
    told = config.load_distillation(CONFIGS / "keypoints_distil.toml", [f"seed={seed}"])
    summary = _kept(own) or distil(told, own)
    return {
        "teacher": summary["teachers"][0],
        "student alone": {"pck": summary["plain"]},  # of which the headline alone is kept
        "student, distilled": summary["student"],
    }


def federated(seed: int, folder: Path) -> dict[str, Row]:
    """Four sites: their teachers' mean, the student without labels, and one of pooled labels."""
    file, own = CONFIGS / "keypoints.toml", folder / f"federated-{seed}"
    summary = _kept(own) or simulate(config.load(file, [f"seed={seed}"]), own)
    teachers = summary["teachers"]
    changes = [f"seed={seed}", "method.name=centralised", "clients.training.epochs=12"]
    pooled = folder / f"pooled-{seed}"
    other = _kept(pooled) or simulate(config.load(file, changes), pooled)
    return {
        "sites' teachers, mean": {name: teachers[f"mean_{name}"] for name in FIGURES},
        "student, no labels": summary["student"],
        "student, pooled labels": other["student"],
    }


def shown(rows: Sequence[Row], figure: str) -> str:
    """A figure of several seeds, as its mean and standard deviation."""
    values = [row[figure] for row in rows if figure in row]
    if not values:
        return "-"
    spread = statistics.stdev(values) if len(values) > 1 else 0
    return f"{statistics.mean(values):.3f} ± {spread:.3f}"


def main() -> None:
    """Run what is not there and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/keypoints"))
    given = parser.parse_args()
    print(f"| figures | {' | '.join(FIGURES)} |\n|---|{'---|' * len(FIGURES)}")
    for study in (distilled, federated):
        found = [study(seed, given.out) for seed in given.seeds]
        for name in found[0]:
            rows = [each[name] for each in found]
            print(f"| {name} | {' | '.join(shown(rows, figure) for figure in FIGURES)} |")


if __name__ == "__main__":
    main()
