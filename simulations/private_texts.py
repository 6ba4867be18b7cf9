"""Sentiment of three sites under differential privacy, and secrets planted in one site's texts.

    FEDKD_DATA=... python simulations/private_texts.py [--seeds 3] [--models bag bilstm] [--secrets]
        [--out runs/private-texts]

Amazon, IMDb and Yelp are a client each (800 reviews to learn from, the rest for testing); FedAvg,
epsilon for each review. The tokeniser is learned from questions and answers, which are public.
With `--secrets` a language model learns the texts, and four numbers of four digits are planted in
one site's texts. A run that is there is not run again.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from fedkd import config
from fedkd.federation.answers import Unwatched
from fedkd.jobs.audit.secrets import Secret, audit_secret
from fedkd.jobs.simulate import simulate

SITES = ("amazon", "imdb", "yelp")
MODELS: dict[str, dict[str, Any]] = {
    "bag": {"name": "bag", "width": 16},
    "bilstm": {"name": "bilstm", "width": 16, "hidden": 16},
    "causal-transformer": {"name": "causal-transformer", "width": 32, "layers": 1, "heads": 2},
}
BUDGETS = (None, 8.0, 3.0)


def write_data(source: Path, folder: Path) -> None:
    """One table of the three sites' reviews, and public texts."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {**row, "site": site}
        for site in SITES
        for row in json.loads((source / "sentiment" / f"{site}.json").read_text("utf-8"))
        if row.get("class") in (0, 1)
    ]
    (folder / "reviews.json").write_text(json.dumps(rows), "utf-8")
    pairs = json.loads((source / "qa" / "pairs.json").read_text("utf-8"))
    lines = {line.replace("\n", " ") for _, *both in pairs for line in both}
    (folder / "public.txt").write_text("\n".join([*sorted(lines), *"0123456789"]), "utf-8")


def experiment(
    folder: Path, model: str, epsilon: float | None, seed: int, task: str = "classification"
) -> config.Experiment:
    """FedAvg of one model at the three sites."""
    private = {"epsilon": epsilon, "delta": 1e-4, "sample_rate": 0.25, "batch_size": 200}
    writes = task == "language-model"
    return config.parse(
        {
            "name": f"{task}-{model}-{epsilon or 'none'}-{seed}",
            "seed": seed,
            "rounds": 5,
            **({"task": {"name": task}} if writes else {}),
            "data": {
                "name": str(folder / "reviews.json"),
                **({} if writes else {"label": "class"}),
                "client": "site",
                "partition": {"scheme": "natural"},
                "text": {
                    "column": "text",
                    "texts": str(folder / "public.txt"),
                    "vocabulary": 1000,
                    "length": 40,
                    "cut": True,
                },
            },
            "clients": {
                "models": [MODELS[model]],
                "training": {"epochs": 4, "learning_rate": 0.02, "batch_size": 32},
            },
            "student": {"model": MODELS[model]},
            "method": {"name": "fedavg"},
            **({} if epsilon is None else {"privacy": private}),
        }
    )


def accuracies(folder: Path, models: list[str], seeds: int) -> None:
    """A line a run: what the global model is worth on the test reviews."""
    for model in models:
        for epsilon in BUDGETS:
            for seed in range(seeds):
                asked = experiment(folder, model, epsilon, seed)
                run = folder / asked.name
                if not (run / "summary.json").exists():
                    simulate(asked, run)
                told = json.loads((run / "summary.json").read_text("utf-8"))
                print(model, epsilon, seed, told["student"], flush=True)


def exposures(folder: Path) -> None:
    """A line a budget: bits that a language model gives away of each secret."""
    for epsilon in BUDGETS:
        for times in (1, 10):
            asked = experiment(folder, "causal-transformer", epsilon, 0, "language-model")
            run = folder / f"secret-{epsilon or 'none'}-{times}"
            if run.exists():
                continue
            found = audit_secret(asked, Secret(times=times), run, Unwatched())
            for each in found.exposures:
                bits = [round(each, 1) for each in each.bits]
                print(epsilon, times, each.on, bits, each.most, each.epsilon, flush=True)


def main() -> None:
    """Print a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", nargs="*", default=["bag", "bilstm"])
    parser.add_argument("--secrets", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/private-texts"))
    arguments = parser.parse_args()
    write_data(Path(os.environ["FEDKD_DATA"]), arguments.out)
    accuracies(arguments.out, arguments.models, arguments.seeds)
    if arguments.secrets:
        exposures(arguments.out)


if __name__ == "__main__":
    main()
