"""Every application under differential privacy at record level: what is spent, what is left.

    FEDKD_DATA=... python simulations/private_tasks.py [--only keypoints ...] [--out runs/private]

Each is its own configuration with epsilon 8 and delta 1e-5 for each record of a client, and shorter
training of larger batches, as noise asks for; nothing was tuned. Where a task, a model or a method
cannot be protected, the one line with which it is refused. A run that is there is not run again.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedkd import config, tasks
from fedkd.errors import FedkdError
from fedkd.jobs.simulate import simulate

CONFIGS = Path(__file__).parents[1] / "fedkd" / "configs"
PRIVACY = ("privacy.epsilon=8", "privacy.delta=1e-5", "privacy.sample_rate=0.25")


@dataclass(frozen=True)
class Application:
    """An application under DP.

    Attributes:
        file: its configuration's name.
        record: what one record is, of which presence is hidden.
        study: the script that writes its data, and into which folder; None: it needs none.
        changes: to the configuration.
    """

    file: str
    record: str
    study: tuple[str, str] | None = None
    changes: tuple[str, ...] = ()


APPLICATIONS = {
    "segmentation": Application(
        "segmentation",
        "a tile of 64x64 pixels",
        ("segmentation.py", "nuclei"),
        (
            "method.name=fedmd",
            "rounds=1",
            "clients.training.epochs=6",
            "clients.training.batch_size=16",
        ),
    ),
    "detection": Application(
        "detection",
        "a crop of 64x64 pixels",
        ("detection.py", "crowns"),
        (
            "method.name=fedmd",
            "rounds=1",
            "clients.training.epochs=6",
            "clients.training.batch_size=32",
        ),
    ),
    "keypoints": Application(
        "keypoints",
        "a figure",
        None,
        ("clients.training.epochs=10", "clients.training.batch_size=40"),
    ),
    "recommender": Application(
        "recommender",
        "a user",
        ("recommender.py", "."),
        ("clients.training.epochs=20", "clients.training.batch_size=50"),
    ),
    "faces": Application("faces_federated", "a portrait", ("faces.py", ".")),
    "across modalities": Application(
        "cross_modal", "a digit with its views", ("cross_modal.py", ".")
    ),
    "across domains": Application(
        "cross_domain",
        "a digit",
        ("cross_domain.py", "."),
        ("clients.training.epochs=2", "clients.training.batch_size=500"),
    ),
    "continual": Application(
        "federated_continual",
        "an image",
        None,
        ("clients.training.epochs=1", "clients.training.batch_size=100"),
    ),
}


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder, since configurations name their data's files beside them."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run(name: str, folder: Path) -> str:
    """A row of the table: the task, its record, the epsilon spent, and what it is worth."""
    one = APPLICATIONS[name]
    out = (folder / name.replace(" ", "-")).resolve()
    data = (folder / "data").resolve()
    data.mkdir(parents=True, exist_ok=True)
    if one.study is not None and not (marker := data / f".{one.file}").exists():
        script, place = one.study
        told = [sys.executable, str(Path(__file__).with_name(script)), "--write", place]
        subprocess.run(told, cwd=data, check=True)
        marker.touch()
    try:
        with inside(data):
            experiment = config.load(CONFIGS / f"{one.file}.toml", [*PRIVACY, *one.changes])
            kept = out / "summary.json"
            summary = (
                json.loads(kept.read_text("utf-8")) if kept.exists() else simulate(experiment, out)
            )
    except FedkdError as error:
        return f"| {name} | {one.record} | refused | {error} |"
    score = summary.get("scores", [{"name": tasks.ACCURACY}])[0]["name"]
    figure = score.replace("-", "_")
    teachers = summary["teachers"][f"mean_{figure}"]
    worth = f"{score}: student {summary['student'][figure]:.3f}, teachers {teachers:.3f}"
    return f"| {name} | {one.record} | {summary['privacy']['epsilon']:.2f} | {worth} |"


def main() -> None:
    """Run what is not there and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=APPLICATIONS, default=list(APPLICATIONS))
    parser.add_argument("--out", type=Path, default=Path("runs/private"))
    given = parser.parse_args()
    print("| application | one record | epsilon spent | what it is worth, or why it is refused |")
    print("|---|---|---|---|")
    for name in given.only:
        print(run(name, given.out), flush=True)


if __name__ == "__main__":
    main()
