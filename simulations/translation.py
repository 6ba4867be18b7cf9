"""Translation of interface strings, English to French: a large model's sentences teach a small one.

    python simulations/translation.py --data DATA --out OUT [--seeds 1]

`DATA/enfr/pairs.json` holds [project, English, French] of five projects. A fifth of the strings,
drawn by the seed, is for testing. The tokeniser is learned from the strings that are not for
testing, all of which are published: in the federated part, too, no client has another secret.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

from fedkd import config
from fedkd.jobs.distil import distil

TEACHER = {"name": "gru-seq2seq", "width": 128, "hidden": 256}
STUDENT = {"name": "gru-seq2seq", "width": 56, "hidden": 96}
HOW = {
    "batch_size": 32,
    "optimiser": "adam",
    "learning_rate": 0.003,
    "schedule": "cosine",
    "clip_norm": 1.0,
}


def written(data: Path, folder: Path, seed: int) -> dict[str, Any]:
    """Tables for training and testing, and `[data]` of them."""
    pairs = json.loads((data / "enfr" / "pairs.json").read_text(encoding="utf-8"))
    random.Random(seed).shuffle(pairs)
    fifth = len(pairs) // 5
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("test", pairs[:fifth]), ("train", pairs[fifth:])):
        rows = [{"project": p, "text": en, "label": fr} for p, en, fr in part]
        (folder / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    texts = "\n".join(each.replace("\n", " ") for _, *both in pairs[fifth:] for each in both)
    (folder / "public.txt").write_text(texts, encoding="utf-8")
    text = {"texts": str(folder / "public.txt"), "vocabulary": 1500, "length": 32, "cut": True}
    return {"name": str(folder / "train.json"), "test": str(folder / "test.json"), "text": text}


def distillation(data: dict[str, Any], seed: int, *, epochs: tuple[int, int]) -> dict[str, Any]:
    """One party: a teacher, a student of a fifth of its size, and the same student alone."""
    teacher, student = epochs
    return {
        "name": "translation",
        "seed": seed,
        "task": {"name": "sequence-to-sequence", "scores": ["chrf", "bleu", "token-accuracy"]},
        "data": data,
        "teachers": [{"model": TEACHER, "training": HOW | {"epochs": teacher}}],
        "student": {"model": STUDENT, "training": HOW | {"epochs": student}},
        "way": {"name": "sequence-level"},
    }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, nargs=2, default=(10, 16))
    asked = parser.parse_args()
    for seed in range(asked.seeds):
        folder = asked.out / f"seed{seed}"
        table = distillation(written(asked.data, folder, seed), seed, epochs=tuple(asked.epochs))
        found = distil(config.validate(config.Distillation, table), folder / "run")
        shown = {
            who: found[who] for who in ("student", "teachers", "plain", "gain") if who in found
        }
        print(json.dumps({"seed": seed, **shown}))


if __name__ == "__main__":
    main()
