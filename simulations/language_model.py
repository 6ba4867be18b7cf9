"""A language model of interface strings: a student by offline and by on-policy distillation.

    python simulations/language_model.py --data DATA --out OUT [--seeds 0] [--strings 2000]

English strings of `DATA/enfr/pairs.json` as byte pairs, hardly more than characters (320 tokens).
A fifth, drawn by the seed, is for testing. Perplexity is of these, by the one tokeniser of all.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

from fedkd import config
from fedkd.jobs.distil import distil

HOW = {"batch_size": 32, "optimiser": "adam", "learning_rate": 0.003, "schedule": "cosine"}
TEACHER = {"name": "causal-transformer", "width": 96, "layers": 2}
STUDENT = {"name": "causal-transformer", "width": 24, "layers": 1}
SHARED = {"name": "jsd", "temperature": 1.0, "weight": 1.0}
WAYS: dict[str, dict[str, Any]] = {
    "offline kd": {
        "way": {"name": "offline", "labels": 1.0},
        "knowledge": [{"name": "kd", "temperature": 1.0, "weight": 1.0}],
    },
    "on-policy jsd, fresh": {
        "way": {"name": "on-policy", "labels": 1.0, "student_share": 0.5, "prompt": 6},
        "knowledge": [SHARED],
    },
    "offline kd, then more of it": {
        "way": {"name": "offline", "labels": 1.0},
        "knowledge": [{"name": "kd", "temperature": 1.0, "weight": 1.0}],
    },
    "offline kd, then on-policy jsd": {
        "way": {"name": "on-policy", "labels": 1.0, "student_share": 0.5, "prompt": 6},
        "knowledge": [SHARED],
    },
}
"""In order; GKD starts from a student that has learned already, as the last two do from the first's
student, for as many epochs again."""


def written(data: Path, folder: Path, seed: int, count: int) -> dict[str, Any]:
    """Tables for training and testing, and `[data]` of them."""
    pairs = json.loads((data / "enfr" / "pairs.json").read_text(encoding="utf-8"))
    random.Random(seed).shuffle(pairs)
    texts = [english.replace("\n", " ") for _, english, _ in pairs[:count]]
    fifth = len(texts) // 5
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("test", texts[:fifth]), ("train", texts[fifth:])):
        rows = [{"text": each} for each in part]
        (folder / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    (folder / "public.txt").write_text("\n".join(texts[fifth:]), encoding="utf-8")
    text = {"texts": str(folder / "public.txt"), "vocabulary": 320, "length": 32, "cut": True}
    return {"name": str(folder / "train.json"), "test": str(folder / "test.json"), "text": text}


def main() -> None:
    """Run it: the second way takes the first one's teacher."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--strings", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=6)
    asked = parser.parse_args()
    for seed in asked.seeds:
        folder = asked.out / f"seed{seed}"
        data = written(asked.data, folder, seed, asked.strings)
        how = HOW | {"epochs": asked.epochs}
        teacher: dict[str, Any] = {"model": TEACHER, "training": how}
        for number, (name, way) in enumerate(WAYS.items()):
            first = {"file": str(folder / "run0" / "student.safetensors")}
            begun = {"weights": first} if name.startswith("offline kd, then") else {}
            table = {
                "name": "language-model",
                "seed": seed,
                "task": {"name": "language-model"},
                "data": data,
                "teachers": [teacher],
                "student": {"model": STUDENT | begun, "training": how},
                "plain": number == 0,
                **way,
            }
            run = folder / f"run{number}"
            done = run / "summary.json"
            if done.exists():
                found = json.loads(done.read_text(encoding="utf-8"))
            else:
                found = distil(config.validate(config.Distillation, table), run)
            teacher = {
                "model": TEACHER,
                "weights": str(folder / "run0" / "checkpoints" / "teacher-0.safetensors"),
            }
            shown = {
                "teacher": found["teachers"][0],
                "alone": found["plain"],
                name: found["student"],
            }
            print(json.dumps({"seed": seed, **shown}))


if __name__ == "__main__":
    main()
