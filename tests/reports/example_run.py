"""A run folder as `fedkd simulate` leaves it, with plausible figures, for tests of its readers."""

import json
from pathlib import Path

import numpy as np
import tomli_w
from safetensors.numpy import save_file

FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
    "Ankle boot",
)  # fmt: skip
MODELS = ("mlp", "lenet5", "resnet8")


def write_run(
    path,
    *,
    name="fmnist-fedmd",
    method="fedmd",
    seed=0,
    clients=10,
    rounds=5,
    classes=FASHION,
    teachers=True,
    ensemble=True,
    partition=True,
    failures=(),
    lift=0.0,
    alpha=0.3,
    generated=None,
):
    """Write a run folder and return its path.

    `failures` holds (round, client, reason); `lift` is added to the student's accuracy;
    `generated` is a pair of images (n, C, H, W) and labels (n,).
    """
    path.mkdir(parents=True)
    draw = np.random.default_rng([seed, clients, rounds])
    counts = _counts(draw, clients, len(classes), alpha)
    lines = [
        _round(draw, r, rounds, counts, teachers, ensemble, failures, lift)
        for r in range(1, rounds + 1)
    ]
    write_lines(path, lines)
    write_config(path, name, method, seed, clients, rounds, alpha)
    environment = {
        "fedkd": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "flwr": "1.41.0",
        "platform": "Linux-6.1-x86_64", "cores": 2, "started": "2026-11-23T21:53:00Z",
    }  # fmt: skip
    (path / "environment.json").write_text(json.dumps(environment))
    if partition:
        table = {"classes": list(classes), "counts": counts.tolist()}
        (path / "partition.json").write_text(json.dumps(table))
    if generated is not None:
        images, labels = generated
        save_file({"x": images, "y": labels}, path / "generated.safetensors")
    summary = _summary(lines, name, method, seed, clients)
    (path / "summary.json").write_text(json.dumps(summary))
    return path


def write_lines(path, lines):
    (path / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def read_lines(path):
    return [json.loads(line) for line in (path / "rounds.jsonl").read_text().splitlines()]


def change(path: Path, **values):
    """Replace keys of `summary.json`."""
    summary = json.loads((path / "summary.json").read_text())
    (path / "summary.json").write_text(json.dumps(summary | values))


def blobs(per_class=6, classes=10, side=28, channels=1, seed=0):
    """Soft random shapes: a pair (images, labels) as a generator may draw them."""
    draw = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), per_class)
    y, x = np.mgrid[:side, :side] / side
    images = []
    for label in labels:
        centre = 0.3 + 0.4 * draw.random(2) * (1 + label % 3) / 3
        shape = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (0.01 + 0.012 * label))
        images.append(np.repeat(shape[None], channels, axis=0))
    return np.array(images, dtype=np.float32), labels.astype(np.int64)


def _counts(draw, clients, classes, alpha):
    shares = draw.dirichlet([alpha] * clients, size=classes).T
    return np.round(shares * 480 * clients / classes).astype(int) + (shares > 0.002)


def _round(draw, number, rounds, counts, teachers, ensemble, failures, lift):
    clients, classes = counts.shape
    grown = 1 - np.exp(-3.0 * number / min(rounds, 40)) if rounds > 1 else 0.95
    by_class = np.clip(0.86 * grown + lift + draw.normal(0, 0.05, classes), 0, 1)
    held = counts / max(1, counts.max())
    own = (0.35 + 0.6 * grown) * np.minimum(1, 3 * held) + draw.normal(0, 0.03, counts.shape)
    own = np.clip(own, 0, 1)
    lost = [{"client": c, "reason": why} for r, c, why in failures if r == number]
    return {
        "round": number,
        "student": {"accuracy": float(by_class.mean()), "by_class": by_class.tolist()},
        "teachers": {
            "mean_accuracy": float(own.mean()),
            "by_client": {
                str(c): {
                    "model": MODELS[c % 3],
                    "accuracy": float(own[c].mean()),
                    "by_class": own[c].tolist(),
                }
                for c in range(clients)
            },
        } if teachers else None,
        "ensemble": {"accuracy": float(min(1, by_class.mean() + 0.02))} if ensemble else None,
        "losses": {"distil": float(1.2 * (1.05 - grown))},
        "bytes": {"up": 40_128 * clients, "down": 41_900 * clients if number > 1 else 0},
        "seconds": {
            "total": 3.2, "clients": 2.1, "server": 1.0,
            "phases": {"train": 0.31 * clients, "distil": 0.1 * clients, "predict": 0.02 * clients},
        },
        "participants": list(range(clients)),
        "failures": lost,
        "capped": [],
    }  # fmt: skip


def write_config(path, name, method, seed, clients, rounds, alpha):
    config = {
        "name": name, "seed": seed, "rounds": rounds,
        "data": {"partition": {"scheme": "dirichlet", "alpha": alpha}, "public": {"size": 1000}},
        "clients": {"count": clients, "models": list(MODELS)},
        "method": {"name": method},
    }  # fmt: skip
    (path / "config.toml").write_text(tomli_w.dumps(config))


def _summary(lines, name, method, seed, clients):
    last = lines[-1]
    own = last["teachers"] and [t["accuracy"] for t in last["teachers"]["by_client"].values()]
    return {
        "name": name, "method": method, "dataset": "fashion-mnist-sample", "seed": seed,
        "rounds": len(lines), "clients": clients,
        "student": {
            "accuracy": last["student"]["accuracy"],
            "best_accuracy": max(line["student"]["accuracy"] for line in lines),
            "model": "lenet5", "parameters": 61_706,
        },
        "teachers": own and {
            "mean_accuracy": last["teachers"]["mean_accuracy"],
            "best_accuracy": max(own),
        },
        "ensemble": last["ensemble"],
        "bytes": {side: sum(line["bytes"][side] for line in lines) for side in ("up", "down")},
        "seconds": 3.2 * len(lines) + 1.1,
        "failures": sum(len(line["failures"]) for line in lines),
        "privacy": {"unit": "none"},
    }  # fmt: skip
