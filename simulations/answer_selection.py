"""Which of 50 answers is a question's own: a sentence encoder's knowledge in a bag of pieces.

    FEDKD_DATA=... python simulations/answer_selection.py [--seeds 0 1 2] [--held-out]

The pairs are chatterbot-corpus's (BSD), `$FEDKD_DATA/qa`, each once and no answer above 200
characters; the encoder is all-MiniLM-L6-v2, by its package, see `texts.py`, as it comes. 250 pairs
are for testing, in five groups of 50 candidates. Texts without an answer, of which the encoder's
states alone are used: reviews, interface strings, and the questions and answers that are not for
testing. `--held-out` leaves the test pairs alone, and tests on 150 of the others.
"""

import argparse
import json
import os
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from platformdirs import user_cache_path
from texts import LENGTH, Study, build, fetched, numbered
from torch import Tensor, nn

from fedkd import rng, tasks
from fedkd.config import Optimisation, TaskChoice
from fedkd.data.types import Samples
from fedkd.knowledge import similarity
from fedkd.learning import evaluate, offline
from fedkd.tasks import Task

TEST, HELD, WIDTH = 250, 150, 128
RARE = 1e-3  # a of the weight a / (a + p) of a token that is the share p of all
HOW = Optimisation(
    epochs=20, batch_size=64, optimiser="adam", learning_rate=0.002, schedule="cosine"
)


def pairs(data: Path) -> list[tuple[str, str]]:
    """Questions and answers, each pair once."""
    rows = json.loads((data / "qa" / "pairs.json").read_text(encoding="utf-8"))
    found = {}
    for _, *both in rows:
        question, answer = (" ".join(text.split()) for text in both)
        if question and 0 < len(answer) < 200:
            found.setdefault((question.lower(), answer.lower()), (question, answer))
    return list(found.values())


def public(data: Path) -> list[str]:
    """Reviews and interface strings, each once."""
    reviews = [json.loads(each.read_text("utf-8")) for each in (data / "sentiment").glob("*.json")]
    strings = json.loads((data / "enfr" / "pairs.json").read_text(encoding="utf-8"))
    texts = {row["text"] for rows in reviews for row in rows} | {row[1] for row in strings}
    return sorted(text for text in texts if text.strip())


def split(count: int, seed: int, *, held: bool) -> tuple[Tensor, Tensor]:
    """Rows of pairs for testing, and of those to learn from."""
    order = torch.randperm(count, generator=rng.stream(seed, purpose="answers split"))
    test, train = order[:TEST], order[TEST:]
    return (train[:HELD], train[HELD:]) if held else (test, train)


def of_tokens(study: Study) -> Tensor:
    """What the encoder makes of each token alone (V, 384); of marks and other letters nothing."""
    pieces = [token.removeprefix("##") for token in study.words.names]
    plain = [n for n, piece in enumerate(pieces) if piece.isascii() and not piece.startswith("[")]
    found = torch.zeros(len(pieces), study.of_all.shape[1])
    found[plain] = study.states([pieces[n] for n in plain])
    found[plain] -= found[plain].mean(dim=0)
    return found


def vectors(study: Study, tokens: Tensor, texts: Sequence[str]) -> Tensor:
    """Vectors of tokens, cut to principal components, and the smaller the more frequent they are.

    The weights are of Arora et al. 2017, "A simple but tough-to-beat baseline for sentence
    embeddings", and the mean of such vectors is a text's.
    """
    _, _, axes = torch.linalg.svd(tokens, full_matrices=False)
    seen = Counter(token for each in study.words.encode(texts, length=LENGTH) for token in each.ids)
    share = torch.tensor([seen[n] + 1.0 for n in range(len(tokens))])
    weight = RARE / (RARE + share / share.sum())
    found = tokens @ axes[:WIDTH].T * weight[:, None]
    return found / found.std() / WIDTH**0.5


def selection(
    study: Study,
    asked: Sequence[tuple[str, str]],
    others: list[str],
    tokens: Tensor,
    seed: int,
    *,
    held: bool,
) -> Iterator[tuple[str, float]]:
    """MRR of the encoder, and of bags by labels, by the encoder, and by both."""
    numbers: dict[str, int] = {}
    y = torch.tensor([numbers.setdefault(answer.lower(), len(numbers)) for _, answer in asked])
    test, train = split(len(asked), seed, held=held)
    own = [text for row in train.tolist() for text in asked[row]]
    known = study.of_all[: 2 * len(asked)].reshape(len(asked), 2, -1)
    words = study.words
    alone = partial(numbered, words)
    x = alone(study.texts[: 2 * len(asked)]).reshape(len(asked), 2, LENGTH)
    choice = TaskChoice.model_validate({"name": "retrieval", "dimensions": WIDTH})
    task: Task = tasks.build(
        choice, inputs=(2, LENGTH), names=(), vocabularies={"": words.vocabulary}
    )
    likelihood, begun = task.likelihood, vectors(study, tokens, [*others, *own])

    def score(answers: nn.Module | Tensor) -> float:
        """MRR on the test pairs, of a model or of answers to all pairs."""
        given = answers if isinstance(answers, nn.Module) else answers[test]
        return float(evaluate.score(given, Samples(x[test], y[test]), task.scores)["mrr"])

    def student(*, begins: bool) -> nn.Module:
        """A bag; `begins`: with the encoder's vectors, and its last layer as the identity."""
        model = build({"name": "bag", "width": WIDTH}, task, seed)
        if begins:
            with torch.no_grad():
                model.get_parameter("each.embedding.weight").copy_(begun)
                model.get_parameter("each.classifier.weight").copy_(torch.eye(WIDTH))
                model.get_parameter("each.classifier.bias").zero_()
        return model

    def of_texts(model: nn.Module) -> None:
        """By whom of its batch a text is like, as the encoder sees it; no answer is needed."""
        rows = torch.cat([2 * train, 2 * train + 1, torch.arange(2 * len(asked), len(study.texts))])
        shown = alone([study.texts[row] for row in rows.tolist()])
        each, draws = model.get_submodule("each"), rng.stream(seed, purpose="texts")
        loss = partial(similarity.neighbourhood, temperature=0.05)
        how = HOW.model_copy(update={"batch_size": 128, "epochs": 5})
        offline.distil(each, shown, study.of_all[rows], loss, how, draws)

    def of_pairs(model: nn.Module, *, taught: bool) -> None:
        """By which answer is a question's own, and which the encoder would pick."""
        named = torch.cat([known[train].flatten(1), y[train, None].to(known)], dim=1)

        def loss(answers: Tensor, told: Tensor) -> Tensor:
            value = likelihood.nll(answers, told[:, -1])
            theirs = told[:, :-1].reshape(len(told), 2, -1)
            picked = likelihood.divergence(answers, theirs, temperature=1.0) if taught else 0.0
            return value + picked

        offline.distil(model, x[train], named, loss, HOW, rng.stream(seed, purpose="pairs"))

    yield "the encoder, as it comes", score(known)
    yield "its vectors of tokens, weighed, without training", score(student(begins=True))
    for begins in (False, True):
        how = ", MiniLM's vectors" if begins else ""
        of_pairs(model := student(begins=begins), taught=False)
        yield f"pairs alone{how}", score(model)
        of_texts(model := student(begins=begins))
        yield f"distilled on texts, no pair{how}", score(model)
        of_pairs(model, taught=True)
        yield f"distilled on texts, then pairs{how}", score(model)
    yield "parameters", float(sum(each.numel() for each in model.parameters()))


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--held-out", action="store_true")
    cache = user_cache_path("fedkd") / "minilm"
    parser.add_argument("--cache", type=Path, default=os.environ.get("FEDKD_MINILM", cache))
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = Path(os.environ["FEDKD_DATA"])
    asked, others = pairs(data), public(data)
    texts = [*(text for pair in asked for text in pair), *others]
    study = Study(fetched(Path(given.cache)), texts, torch.empty(0))
    tokens, found = of_tokens(study), dict[str, list[float]]()
    for seed in given.seeds:
        for who, figure in selection(study, asked, others, tokens, seed, held=given.held_out):
            found.setdefault(who, []).append(figure)
            print(f"seed {seed}, {who}: {figure:.3f}", file=sys.stderr, flush=True)
    print("\n| answer selection, MRR | mean | by seed |\n|---|---|---|")
    for who, each in found.items():
        print(f"| {who} | {statistics.mean(each):.3f} | {' '.join(f'{f:.3f}' for f in each)} |")


if __name__ == "__main__":
    main()
