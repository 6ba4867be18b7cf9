"""Translation of interface strings, English to French: a large model's sentences teach a small one.

    python simulations/translation.py --data DATA --out OUT [--seeds 0] [--federated] [--tokens N]

`DATA/enfr/pairs.json` holds [project, English, French] of five projects. A fifth of the strings,
drawn by the seed, is for testing. The tokeniser is learned from the strings that are not for
testing, all of which are published: in the federated part, too, no client has another secret.
There a project is a client of FedAvg, and the same student learns from each project alone, for as
many rounds. With `--tokens` the student of one party has a tokeniser of its own, of so many tokens,
and its teacher one of 1,500; `--strings` takes fewer of them.
"""

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from fedkd import config
from fedkd.data.texts import tokenizer
from fedkd.data.types import Samples
from fedkd.federation.prepare import prepare as prepared
from fedkd.jobs.distil import distil
from fedkd.jobs.simulate import simulate
from fedkd.learning import evaluate
from fedkd.learning.ways import prepare
from fedkd.learning.ways.base import task_seen
from fedkd.learning.ways.prepare import Prepared
from fedkd.rows import whole

TEACHER = {"name": "gru-seq2seq", "width": 128, "hidden": 256}
STUDENT = {"name": "gru-seq2seq", "width": 56, "hidden": 96}
HOW = {
    "batch_size": 32,
    "optimiser": "adam",
    "learning_rate": 0.003,
    "schedule": "cosine",
    "clip_norm": 1.0,
}


def written(
    data: Path, folder: Path, seed: int, strings: int | None = None, tokens: int | None = None
) -> dict[str, Any]:
    """Tables for training and testing, and `[data]` of them."""
    pairs = json.loads((data / "enfr" / "pairs.json").read_text(encoding="utf-8"))
    random.Random(seed).shuffle(pairs)
    pairs = pairs[:strings]
    fifth = len(pairs) // 5
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("test", pairs[:fifth]), ("train", pairs[fifth:])):
        rows = [{"project": p, "text": en, "label": fr} for p, en, fr in part]
        (folder / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    texts = "\n".join(each.replace("\n", " ") for _, *both in pairs[fifth:] for each in both)
    (folder / "public.txt").write_text(texts, encoding="utf-8")
    text: dict[str, Any] = {"texts": str(folder / "public.txt"), "length": 32, "cut": True}
    text["vocabulary"] = tokens or 1500
    if tokens is not None:
        learned = tokenizer.learn(texts.split("\n"), 1500).content
        (folder / "teacher.json").write_text(learned, encoding="utf-8")
        text["tokenizer"] = {"teacher": str(folder / "teacher.json"), "student": "bpe"}
    return {"name": str(folder / "train.json"), "test": str(folder / "test.json"), "text": text}


def distillation(
    data: dict[str, Any], seed: int, *, epochs: tuple[int, int], scores: tuple[str, ...]
) -> config.Distillation:
    """One party: a teacher, a student of a fifth of its size, and the same student alone."""
    teacher, student = epochs
    unlike = "tokenizer" in data["text"]
    table = {
        "name": "translation",
        "seed": seed,
        "task": {"name": "sequence-to-sequence", "scores": list(scores)},
        "data": data,
        "teachers": [
            {
                "model": TEACHER,
                "training": HOW | {"epochs": teacher},
                "views": ["teacher"] if unlike else [],
            }
        ],
        "student": {
            "model": STUDENT,
            "training": HOW | {"epochs": student},
            "views": ["student"] if unlike else [],
        },
        "way": {"name": "sequence-level"},
    }
    return config.validate(config.Distillation, table)


def federation(
    data: dict[str, Any], seed: int, *, rounds: int, epochs: int, scores: tuple[str, ...]
) -> config.Experiment:
    """FedAvg of the student by project."""
    table = {
        "name": "translation-by-project",
        "seed": seed,
        "rounds": rounds,
        "task": {"name": "sequence-to-sequence", "scores": list(scores)},
        "data": data | {"client": "project", "partition": {"scheme": "natural"}},
        "clients": {"models": [STUDENT], "training": HOW | {"epochs": epochs}},
        "student": {"model": STUDENT},
        "method": {"name": "fedavg"},
    }
    return config.parse(table)


def of_projects(data: dict[str, Any], folder: Path, seed: int, **how: int) -> dict[str, Any]:
    """What is written by the projects' average, and by the student of each alone: chrF, BLEU."""
    rows = json.loads(Path(data["name"]).read_text(encoding="utf-8"))
    found = {}
    for project in ("", *sorted({row["project"] for row in rows})):
        mine, run = folder / f"{project or 'all'}.json", folder / f"federated-{project or 'all'}"
        own = [row for row in rows if project in ("", row["project"])]
        mine.write_text(json.dumps(own), encoding="utf-8")
        named = data | {"name": str(mine)}
        if not (run / "summary.json").exists():
            simulate(federation(named, seed, scores=("token-accuracy",), **how), run)
        ready = prepared(federation(named, seed, scores=("chrf", "bleu"), **how))
        setting = ready.setting
        model = setting.build(setting.experiment.student.model, purpose="student")
        model.load_state_dict(load_file(run / "student.safetensors"))
        figure = evaluate.score(model, ready.data.test, setting.task.scores)
        name = f"{project} alone" if project else "FedAvg of all"
        found[name] = {"strings": len(own), "chrf": figure["chrf"], "bleu": figure["bleu"]}
        print(f"seed {seed}, {name}: {found[name]}", file=sys.stderr, flush=True)
    return found


def figures(told: config.Distillation, run: Path) -> dict[str, Any]:
    """What the models of a finished run write of the test strings, against the true ones."""
    ready = prepare.prepare(told)
    teacher, student = ready.teachers[0], ready.student(ready.teachers)
    found = {"copying": _copied(ready.data.test, ready)}
    theirs = ready.shares.teachers[0]
    for name, model, file, seen in (
        ("teacher", teacher, "checkpoints/teacher-0", theirs),
        ("student alone", student, "checkpoints/plain-student", ready.data),
        ("student of sentences", student, "student", ready.data),
    ):
        model.load_state_dict(load_file(run / f"{file}.safetensors"))
        figure = evaluate.score(model, seen.test, task_seen(told, ready.task, seen).scores)
        size = sum(each.numel() for each in model.parameters())
        found[name] = {"parameters": size, "chrf": figure["chrf"], "bleu": figure["bleu"]}
    return found


def _copied(test: Samples, ready: Prepared) -> dict[str, Any]:
    """The English strings as they are."""
    length = ready.task.answer[0]
    copied = whole(test.x)[:, 1 : length + 1]
    return {each.figure: each.of(copied, test.y)[each.figure] for each in ready.task.scores}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, nargs=2, default=(10, 16))
    parser.add_argument("--federated", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--strings", type=int)
    parser.add_argument("--tokens", type=int)
    asked = parser.parse_args()
    for seed in asked.seeds:
        folder = asked.out / f"seed{seed}"
        data, run = written(asked.data, folder, seed, asked.strings, asked.tokens), folder / "run"
        if asked.federated:
            found = of_projects(data, folder, seed, rounds=asked.rounds, epochs=2)
            print(json.dumps({"seed": seed, **found}, indent=1))
            continue
        how = {"epochs": tuple(asked.epochs)}
        if not (run / "summary.json").exists():  # what is written takes longer than an epoch
            distil(distillation(data, seed, scores=("token-accuracy",), **how), run)
        told = distillation(data, seed, scores=("chrf", "bleu"), **how)
        print(json.dumps({"seed": seed, **figures(told, run)}, indent=1))


if __name__ == "__main__":
    main()
