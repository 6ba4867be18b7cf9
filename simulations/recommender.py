"""Recommenders: what a small student learns of a large one, and of clients who share no history.

    python simulations/recommender.py [--seeds 0 1 2] [--only distil federate]
    python simulations/recommender.py --write FOLDER      # the drawn example's two files alone

The study is on MovieLens-100k (GroupLens; for research, not to be redistributed), which the package
recbole brings: it is downloaded by pip into a cache outside the tree, and nothing of it is kept
elsewhere. A film rated 4 or more was liked; 1,008 films that five users liked, and users who liked
five of these. A fifth of users is for testing, and of what each of them liked a hashed fifth is to
be found. Clients are groups of occupations; 150 histories are the proxy set.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from platformdirs import user_cache_path

from fedkd import config, rng
from fedkd.data.types import Samples
from fedkd.federation.prepare import prepare
from fedkd.jobs.distil import distil
from fedkd.jobs.simulate import simulate
from fedkd.learning import evaluate, supervised

SCORES = ["ndcg@10", "hr@10", "recall@10"]
PACKAGE, INSIDE = "recbole==1.2.1", "recbole/dataset_example/ml-100k/ml-100k"
TECHNICAL = ("student", "engineer", "programmer", "technician", "scientist")
GROUPS = (("student",), TECHNICAL[1:], ("other", "administrator", "executive", "salesman"))
HIDE = [{"name": "dropout", "probability": 0.5}]
ADAM = {"batch_size": 64, "optimiser": "adam", "learning_rate": 0.003}
LARGE = {"name": "mult-dae", "hidden": [100]}
TOWERS = {"name": "two-tower", "width": 32}
LONG = {**ADAM, "augment": HIDE, "epochs": 200, "schedule": "cosine"}
TEACHING = {**LONG, "weight_decay": 2e-4}
LEARNING = {**LONG, "learning_rate": 0.01}
DECAY = {"weight_decay": 1e-4}
DIVERGENCE = {"name": "divergence", "temperature": 2.0}


@dataclass(frozen=True)
class Lesson:
    """What a student learns: units, forms, the weight of labels, decay, and whether alone too."""

    knowledge: Sequence[Mapping[str, Any]] = (DIVERGENCE,)
    units: int = 6
    labels: float = 0.0
    decay: Mapping[str, float] = field(default_factory=dict)
    alone: bool = False


LESSONS = {
    "6 units, `divergence`": Lesson(alone=True),
    "6 units, `relaxed-ranking`": Lesson([{"name": "relaxed-ranking", "k": 10}]),
    "6 units, `ranking` and labels": Lesson([{"name": "ranking"}], labels=1.0),
    "6 units, `divergence` and `experts`": Lesson(
        [DIVERGENCE, {"name": "experts", "student": "tanh1", "teacher": "tanh1"}]
    ),
    "6 units with decay, `divergence`": Lesson(decay=DECAY, alone=True),
    "12 units with decay, `divergence`": Lesson(units=12, decay=DECAY, alone=True),
}


def write_clicks(path: Path, *, users: int = 400, items: int = 60) -> None:
    """Draw users, each with a taste for some of five shelves; the catalogue is written beside."""
    draws = np.random.default_rng(0)
    popular = draws.exponential(size=items) + 0.2
    shelf = np.arange(items) % 5
    rows = []
    for user in range(users):
        liking = popular * draws.dirichlet(np.full(5, 0.3))[shelf] + 1e-3
        taken = draws.choice(
            items, size=int(draws.integers(8, 20)), replace=False, p=_share(liking)
        )
        shop = "north" if user % 2 else "south"
        rows += [[f"u{user}", f"i{item}", time, shop] for time, item in enumerate(taken)]
    _write(path, ["user", "item", "time", "shop"], rows)
    (path.parent / "items.txt").write_text("\n".join(f"i{item}" for item in range(items)) + "\n")


def _share(weights: Any) -> Any:
    return weights / weights.sum()


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def fetched(cache: Path) -> Path:
    """The package as a file; `SystemExit` with the reason where it cannot be had."""
    cache.mkdir(parents=True, exist_ok=True)
    if not (found := list(cache.glob("recbole-*.whl"))):
        asked = ["download", "--no-deps", "--only-binary", ":all:", "-d", str(cache), PACKAGE]
        done = subprocess.run(
            [sys.executable, "-m", "pip", *asked], capture_output=True, text=True, check=False
        )
        found = list(cache.glob("recbole-*.whl"))
        if not found:
            raise SystemExit(f"MovieLens-100k is not here: pip says {done.stderr.strip()[-300:]}")
    return found[0]


def write_films(wheel: Path, folder: Path) -> None:
    """`ratings.csv` and the catalogue `films.txt`, from the package."""
    with zipfile.ZipFile(wheel) as archive:
        tables = [archive.read(f"{INSIDE}.{kind}").decode() for kind in ("inter", "user")]
    ratings, people = ([line.split("\t") for line in each.splitlines()[1:]] for each in tables)
    jobs = {person[0]: person[3] for person in people}
    liked = [row for row in ratings if float(row[2]) >= 4]
    often = Counter(row[1] for row in liked)
    films = sorted((film for film, count in often.items() if count >= 5), key=int)
    liked = [row for row in liked if often[row[1]] >= 5]
    many = {user for user, count in Counter(row[0] for row in liked).items() if count >= 5}
    rows = [[*row, *_groups(jobs[row[0]])] for row in liked if row[0] in many]
    _write(folder / "ratings.csv", ["user", "item", "rating", "time", "two", "four"], rows)
    (folder / "films.txt").write_text("\n".join(films))


def _groups(job: str) -> tuple[str, str]:
    """Which of two and of four clients a user's occupation is of."""
    four = next((n for n, group in enumerate(GROUPS) if job in group), len(GROUPS))
    return ("technical" if job in TECHNICAL else "others"), f"group {four}"


def _data(folder: Path, **more: Any) -> dict[str, Any]:
    films = {"items": str(folder / "films.txt")}
    return {"name": str(folder / "ratings.csv"), "interactions": films, **more}


def distillation(
    folder: Path, seed: int, lesson: Lesson, weights: Path | None = None
) -> config.Distillation:
    """A student's lesson from the teacher, who is trained first unless its weights are given."""
    given: dict[str, Any] = {"training": TEACHING} if weights is None else {"weights": str(weights)}
    asked = {
        "name": "forms",
        "seed": seed,
        "plain": lesson.alone,
        "task": {"name": "recommendation", "scores": SCORES},
        "data": _data(folder),
        "teachers": [{"model": LARGE, **given}],
        "student": {
            "model": {"name": "mult-dae", "hidden": [lesson.units]},
            "training": {**LEARNING, **lesson.decay},
        },
        "way": {"name": "offline", "labels": lesson.labels},
        "knowledge": lesson.knowledge,
    }
    return config.validate(config.Distillation, asked)


def distilled(seed: int, folder: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Of the one teacher, and of each lesson's student, taught and alone, who and its scores."""
    weights: Path | None = None
    for number, (name, lesson) in enumerate(LESSONS.items()):
        run = folder / f"distil-{seed}-{number}"
        summary = distil(distillation(folder, seed, lesson, weights), run)
        if weights is None:
            weights = run / "checkpoints" / "teacher-0.safetensors"
            yield "teacher, 100 units", summary["teachers"][0]
        if lesson.alone:
            yield f"{name.split(',')[0]}, alone", {SCORES[0]: summary["plain"]}
        yield name, summary["student"]


def experiment(
    folder: Path, seed: int, clients: str, model: Mapping[str, Any], method: Mapping[str, Any]
) -> dict[str, Any]:
    """A federation of the clients in a column, all models alike."""
    own = {**ADAM, "augment": HIDE}
    rounds, epochs = (20, 3) if method["name"] == "fedavg" else (1, 60)
    return {
        "name": "films",
        "seed": seed,
        "rounds": rounds,
        "task": {"name": "recommendation", "scores": SCORES},
        "data": _data(
            folder,
            client=clients,
            public={"source": "held-out", "size": 150},
            partition={"scheme": "natural"},
        ),
        "clients": {"models": [model], "training": {**own, "epochs": epochs}},
        "student": {"model": model},
        "method": method,
    }


FEDMD = {"name": "fedmd", "student": {**ADAM, "epochs": 100}}
FEDERATIONS: dict[str, tuple[str, Mapping[str, Any], Mapping[str, Any]]] = {
    "pooled histories": ("two", LARGE, {"name": "centralised"}),
    "`fedmd`, 2 clients": ("two", LARGE, FEDMD),
    "`fedmd`, 4 clients": ("four", LARGE, FEDMD),
    "`fedavg`, 2 clients": ("two", LARGE, {"name": "fedavg"}),
    "`fedavg`, 4 clients": ("four", LARGE, {"name": "fedavg"}),
    "`fedavg` of towers, 4 clients": ("four", TOWERS, {"name": "fedavg"}),
    "`fedavg` of item towers, 4 clients": (
        "four",
        TOWERS,
        {"name": "fedavg", "private": ["user"]},
    ),
}


def alone(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """The student of a federation, if it learns from the proxy histories and nobody else."""
    prepared = prepare(config.parse(dict(table)))
    setting, test = prepared.setting, prepared.data.test
    histories = torch.as_tensor(setting.proxy)
    student = setting.build(prepared.experiment.student.model, purpose="student")
    supervised.train(
        student,
        Samples(histories, histories.long()),
        config.Optimisation.model_validate({**ADAM, "augment": HIDE, "epochs": 120}),
        rng.stream(prepared.experiment.seed, purpose="proxy alone"),
        likelihood=setting.task.likelihood,
    )
    return evaluate.score(student, test, setting.task.scores)


def federated(seed: int, folder: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Of each federation, who and the scores; and of the proxy histories alone."""
    for name, model in (("100 hidden units", LARGE), ("towers", TOWERS)):
        yield (
            f"150 proxy histories alone, {name}",
            alone(experiment(folder, seed, "two", model, FEDMD)),
        )
    for number, (name, how) in enumerate(FEDERATIONS.items()):
        run = folder / f"federation-{seed}-{number}"
        summary = simulate(config.parse(experiment(folder, seed, *how)), run)
        if summary["teachers"] is not None:
            teachers = {score: summary["teachers"][f"mean_{score}"] for score in SCORES}
            yield f"{name}: its clients' own models", teachers
        yield name, summary["student"]


PARTS = {"distil": distilled, "federate": federated}


def main() -> None:
    """Run everything and print the tables, or write the drawn files alone."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    cache = user_cache_path("fedkd") / "recbole"
    parser.add_argument("--cache", type=Path, default=os.environ.get("FEDKD_RECBOLE", cache))
    given = parser.parse_args()
    if given.write is not None:
        write_clicks(given.write / "clicks.csv")
        return
    wheel = fetched(given.cache)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_films(wheel, folder)
        for part in given.only:
            found: dict[str, list[Mapping[str, Any]]] = {}
            for seed in given.seeds:
                for who, scores in PARTS[part](seed, folder):
                    found.setdefault(who, []).append(scores)
                    print(f"seed {seed}, {who}: {scores.get(SCORES[0])}", file=sys.stderr)
            print(f"\n| {part} | {' | '.join(SCORES)} | {SCORES[0]} by seed |")
            print("|---|" + "---|" * (len(SCORES) + 1))
            for who, each in found.items():
                cells = [_mean([scores.get(name) for scores in each]) for name in SCORES]
                seeds = " ".join(f"{scores[SCORES[0]]:.3f}" for scores in each)
                print(f"| {who} | {' | '.join(cells)} | {seeds} |", flush=True)


def _mean(figures: Sequence[float | None]) -> str:
    known = [figure for figure in figures if figure is not None]
    if not known:
        return ""
    spread = statistics.stdev(known) if len(known) > 1 else 0.0
    return f"{statistics.mean(known):.3f} ± {spread:.3f}"


if __name__ == "__main__":
    main()
