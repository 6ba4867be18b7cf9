"""Tasks of texts: likelihoods and scores as loops over tokens have them."""

import math

import numpy as np
import pytest
import torch
from agreement import Array, assert_agrees
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedkd import tasks
from fedkd.config import TaskChoice
from fedkd.errors import ConfigError
from fedkd.exchange.aggregation import entropy_reduction
from fedkd.learning import consensus
from fedkd.tasks import Score, Task, Vocabulary
from fedkd.tasks.likelihoods.pairs import pairs
from fedkd.tasks.likelihoods.tokens import SPANS, TOKENS, decide_spans
from fedkd.tasks.scores.entities import entity_f1
from fedkd.tasks.scores.retrieval import ranks

WORDS = Vocabulary(size=9, padding=0, start=1, end=2)
TAGS = ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")
Y = torch.tensor([[2, 0, -100, -100], [1, 1, 0, 2], [-100, -100, -100, -100]])


def build(
    name: str, inputs: tuple[int, ...] = (4,), names: tuple[str, ...] = TAGS, **more: object
) -> Task:
    choice = TaskChoice.model_validate({"name": name, **more})
    return tasks.build(choice, inputs=inputs, names=names, vocabularies={"": WORDS})


def score(task: Task, name: str) -> Score:
    [found] = [each for each in task.scores if each.name == name]
    return found


def log_p(logits: Array) -> Array:
    exps = np.exp(logits)
    return np.log(exps / exps.sum(axis=-1, keepdims=True))


def nll(answers: Array) -> Array:
    found = np.zeros(len(Y), dtype=answers.dtype)
    for n, row in enumerate(Y.tolist()):
        costs = [-log_p(answers[n, t])[tag] for t, tag in enumerate(row) if tag != -100]
        found[n] = sum(costs) / max(1, len(costs))
    return found


@settings(max_examples=4, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_the_likelihood_of_tokens_is_a_mean_over_those_that_count(seed: int) -> None:
    assert_agrees(lambda a: TOKENS.nll(a, Y), nll, [(3, 4, 3)], seed)
    assert_agrees(lambda a: TOKENS.mean_nll(a, Y), lambda a: nll(a).mean(), [(3, 4, 3)], seed)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_divergence_leaves_out_places_of_which_the_teacher_says_nothing(
    temperature: float,
) -> None:
    silent = torch.ones(3, 4, 1)
    silent[0, 2:] = silent[2] = 0

    def divergence(student: Array, teacher: Array) -> Array:
        found = np.zeros(3, dtype=student.dtype)
        for n in range(3):
            told = [t for t in range(4) if silent[n, t, 0]]
            for t in told:
                ours = log_p(student[n, t] / temperature)
                theirs = log_p(teacher[n, t] / temperature)
                found[n] += (np.exp(theirs) * (theirs - ours)).sum() / len(told)
        return temperature**2 * found

    def found(student: Tensor, teacher: Tensor) -> Tensor:
        return TOKENS.divergence(student, teacher * silent.to(teacher), temperature=temperature)

    assert_agrees(found, divergence, [(3, 4, 3), (3, 4, 3)], 1)
    decided = TOKENS.decide(torch.randn(3, 4, 3) * silent)
    assert (decided == -100).tolist() == (silent[..., 0] == 0).tolist()


@pytest.mark.parametrize("of", ["logits", "probabilities", "confidence"])
def test_a_consensus_says_nothing_where_nobody_does(of: consensus.Average) -> None:
    logits = torch.randn(3, 2, 4, 5)
    logits[:, 0, 2:] = 0
    agreed = consensus.average(logits, of=of)
    assert (agreed[0, 2:] == 0).all()
    assert (agreed[1] != 0).all()


def test_a_sharpened_mean_says_nothing_where_nobody_does() -> None:
    probabilities = torch.randn(3, 4, 5).softmax(dim=-1)
    probabilities[:, 1] = 0
    agreed = entropy_reduction(probabilities, temperature=0.1)
    assert agreed.sum(dim=-1).round().tolist() == [1, 0, 1, 1]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(1, 6))
def test_the_decided_span_is_the_best_of_all(seed: int, length: int) -> None:
    answers = torch.randn(4, 2, length, generator=torch.Generator().manual_seed(seed))
    for (begins, ends), found in zip(answers, decide_spans(answers).tolist(), strict=True):
        every = [(i, j) for i in range(length) for j in range(i, length)]
        assert tuple(found) == max(every, key=lambda pair: begins[pair[0]] + ends[pair[1]])
    assert torch.equal(SPANS.decide(answers), decide_spans(answers))


def test_spans_are_scored_by_match_and_by_what_they_have_in_common() -> None:
    task = build("span", names=("0", "1", "2", "3"))
    assert task.answer == (2, 4)
    answers = torch.zeros(4, 2, 4)
    for row, (first, last) in enumerate([(1, 2), (1, 3), (0, 0), (2, 2)]):
        answers[row, 0, first] = answers[row, 1, last] = 5
    y = torch.tensor([[1, 2], [2, 3], [3, 3], [-100, -100]])  # the last was cut away
    assert score(task, "exact-match").of(answers, y) == {"exact_match": 1 / 3}
    f1 = score(task, "overlap-f1").of(answers, y)["overlap_f1"]
    assert f1 == pytest.approx((1 + 2 * 2 / 5 + 0) / 3)


def tagged(*rows: str) -> Tensor:
    return torch.tensor([[TAGS.index(tag) for tag in row.split()] for row in rows])


def logits_of(tags: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(tags, len(TAGS)).float()


@pytest.mark.parametrize(
    ("true", "found", "right", "entities", "answered"),
    [
        ("B-PER I-PER O B-LOC", "B-PER I-PER O B-LOC", 2, 2, 2),
        ("B-PER I-PER O B-LOC", "B-PER O O B-LOC", 1, 2, 2),  # the end is another
        ("B-PER I-PER O B-LOC", "B-LOC I-LOC O B-LOC", 1, 2, 2),  # the kind is another
        ("B-PER B-PER I-PER O", "B-PER I-PER I-PER O", 0, 2, 1),
        ("O I-PER I-PER O", "O B-PER I-PER O", 1, 1, 1),  # as conlleval, I may begin one
        ("I-PER I-LOC O O", "O O O O", 0, 2, 0),
    ],
)
def test_an_entity_is_right_as_a_whole(
    true: str, found: str, right: int, entities: int, answered: int
) -> None:
    one = entity_f1(TAGS, "O")
    y, answers = tagged(true, "B-PER I-PER I-PER I-PER"), tagged(found, "O O O O")
    y[1, 1:] = -100
    tally = one.tally(logits_of(answers), y)
    assert tally.tolist() == [right, entities + 1, answered]
    assert (tally <= one.totals(y)).all()
    f1 = one.of(logits_of(answers), y)["entity_f1"]
    assert f1 == pytest.approx(2 * right / (entities + 1 + answered))


def test_tokens_are_scored_over_all_that_count_and_f1_without_those_outside() -> None:
    task = build("tagging", scores=["token-accuracy", "micro-f1", "entity-f1"])
    y, found = tagged("B-PER O O O", "O B-LOC O O"), tagged("B-PER O B-LOC O", "O O O O")
    y[1, 3] = -100
    figures = {k: v for each in task.scores for k, v in each.of(logits_of(found), y).items()}
    assert figures["token_accuracy"] == 5 / 7
    assert figures["micro_f1"] == 2 * 1 / (2 + 2)
    assert figures["micro_f1_by_class"] == [0, 1, None, None, pytest.approx(2 * 4 / (5 + 5))]
    everywhere = build("tagging", scores=["micro-f1"], outside="none").headline
    assert everywhere.of(logits_of(found), y)["micro_f1"] == pytest.approx(5 / 7)


def test_perplexity_is_of_all_tokens_together_and_bounded() -> None:
    task = build("language-model", names=("a", "b", "c"))
    assert (task.answer, task.headline.name) == ((4, 3), "perplexity")
    answers = torch.randn(3, 4, 3)
    costs = [
        -answers[n, t].log_softmax(dim=0)[tag].item()
        for n, row in enumerate(Y.tolist())
        for t, tag in enumerate(row)
        if tag != -100
    ]
    perplexity = task.headline
    assert perplexity.of(answers, Y)["perplexity"] == pytest.approx(math.exp(sum(costs) / 6))
    for wild in (answers * 1e8, answers * math.nan):
        assert (perplexity.tally(wild, Y) <= perplexity.totals(Y)).all()
        assert math.isfinite(perplexity.of(wild, Y)["perplexity"])


def picks(answers: Array, tau: float) -> Array:
    """The logarithm of the chance that question i picks answer j, by loops."""
    units = answers / np.sqrt((answers * answers).sum(axis=-1, keepdims=True))
    found = np.zeros((len(units), len(units)), dtype=answers.dtype)
    for i in range(len(units)):
        found[i] = log_p(
            np.array([(units[i, 0] * units[j, 1]).sum() / tau for j in range(len(units))])
        )
    return found


def test_a_question_picks_among_the_answers_of_its_batch() -> None:
    likelihood, y = pairs(0.3), torch.tensor([4, 1, 4])

    def own(answers: Array) -> Array:
        found = picks(answers, 0.3)
        return np.array([-found[0, [0, 2]].mean(), -found[1, 1], -found[2, [0, 2]].mean()])

    def divergence(student: Array, teacher: Array) -> Array:
        s, t = (picks(each, 0.6) for each in (student, teacher))
        return 4 * (np.exp(t) * (t - s)).sum(axis=1)

    assert_agrees(lambda a: likelihood.nll(a, y), own, [(3, 2, 3)], 3)
    assert_agrees(
        lambda s, t: likelihood.divergence(s, t, temperature=2.0),
        divergence,
        [(3, 2, 3), (3, 2, 4)],
        5,
    )
    answers = torch.randn(2, 5, 2, 3)
    assert likelihood.mix is not None
    assert likelihood.mix(answers).shape == (5, 2, 3)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), records=st.integers(1, 9), candidates=st.integers(2, 5))
def test_the_rank_is_that_among_candidates(seed: int, records: int, candidates: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    answers = torch.randn(records, 2, 3, generator=draws).double()
    y = torch.randint(0, 4, (records,), generator=draws)
    for n, found in enumerate(ranks(answers, y, candidates).tolist()):
        first = max(0, min(n // candidates * candidates, records - candidates))
        among = [
            m for m in range(first, min(first + candidates, records)) if m == n or y[m] != y[n]
        ]
        alike = {m: torch.cosine_similarity(answers[n, 0], answers[m, 1], dim=0) for m in among}
        assert found == 1 + sum(bool(alike[m] > alike[n] - 1e-12) for m in among if m != n)


def test_retrieval_tells_how_well_answers_are_found() -> None:
    task = build("retrieval", (2, 4), names=("0", "1"), dimensions=3, candidates=4)
    assert (task.answer, task.offers) == ((2, 3), {"text"})
    answers, y = torch.eye(3)[:, None].expand(3, 2, 3), torch.arange(3)
    figures = {k: v for each in task.scores for k, v in each.of(answers, y).items()}
    assert figures == {"mrr": 1.0, "recall_at_1": 1.0}
    collapsed = {k: v for each in task.scores for k, v in each.of(torch.ones(3, 2, 3), y).items()}
    assert collapsed == {"mrr": pytest.approx(1 / 3), "recall_at_1": 0.0}


@pytest.mark.parametrize(
    "name", ["tagging", "span", "language-model", "retrieval", "sequence-to-sequence"]
)
def test_a_task_of_texts_takes_no_images(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"task '{name}' is for texts, and records of the data"):
        tasks.build(TaskChoice(name=name), inputs=(1, 8, 8), names=TAGS)


def test_an_embedding_of_texts_is_a_retrieval() -> None:
    with pytest.raises(ConfigError, match=r"one vector a record.* choose task 'retrieval'"):
        build("embedding", (2, 4))


def test_a_score_by_import_path_is_shown_classes_before_tokens() -> None:
    task = build("tagging", scores=["token-accuracy", "text_metric:Right"])
    found = task.scores[1].of(logits_of(tagged("O O B-PER O")), tagged("O O O O"))
    assert found == {"Right": 0.75}
