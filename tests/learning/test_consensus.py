import math
from functools import partial

import pytest
import torch
from clusters import CLASSES, generator, net, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedkd.learning import consensus
from fedkd.learning.consensus_by_pairs import by_pairs
from fedkd.learning.ensemble import Ensemble

COUNTS = torch.tensor([[5, 0, 2], [15, 0, 0]])


def logits(seed: int, teachers: int = 2) -> Tensor:
    return 2 * torch.randn(teachers, 4, CLASSES, generator=generator(seed)).double()


def rows_of(answer: Tensor) -> list[list[float]]:
    """Probabilities, one list a sample."""
    return answer.softmax(dim=1).tolist()


def probabilities(row: list[float]) -> list[float]:
    powers = [math.exp(value) for value in row]
    return [power / sum(powers) for power in powers]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), teachers=st.integers(1, 4))
def test_the_sure_weigh_more_by_the_exponential_of_minus_their_entropy(
    seed: int, teachers: int
) -> None:
    given_logits = logits(seed, teachers)
    found = consensus.average_confidence(given_logits)
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(4).double())
    for n, row in enumerate(rows_of(found)):
        each = [probabilities(given_logits[k, n].tolist()) for k in range(teachers)]
        weights = [math.exp(sum(p * math.log(p) for p in one)) for one in each]
        for c in range(CLASSES):
            mean = sum(w * one[c] for w, one in zip(weights, each, strict=True)) / sum(weights)
            assert row[c] == pytest.approx(mean)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_each_class_is_left_to_who_has_seen_it(seed: int) -> None:
    given_logits = logits(seed)
    found = rows_of(consensus.by_class(given_logits, COUNTS))
    for n, row in enumerate(found):
        first, second = (probabilities(given_logits[k, n].tolist()) for k in range(2))
        shares = [
            0.25 * first[0] + 0.75 * second[0],
            0.5 * first[1] + 0.5 * second[1],  # nobody has seen it
            first[2],
        ]
        assert row == pytest.approx([share / sum(shares) for share in shares])


def test_equal_counts_are_the_mean_probability_and_sure_teachers_a_plain_vote() -> None:
    mean = consensus.average_probabilities(logits(1))
    equal = consensus.by_class(logits(1), torch.full((2, CLASSES), 7))
    torch.testing.assert_close(equal, mean)
    one_hot = 1e4 * torch.eye(CLASSES).double()[torch.tensor([[0, 1, 2, 2], [0, 1, 0, 2]])]
    found = consensus.average_confidence(one_hot).exp()
    torch.testing.assert_close(found[2], torch.tensor([0.5, 0.0, 0.5]).double())
    unsure = torch.stack([one_hot[0], torch.zeros(4, CLASSES).double()])
    torch.testing.assert_close(
        consensus.average_confidence(unsure).exp().amax(dim=1),
        torch.full((4,), (1 + 1 / 9) / (1 + 1 / 3)).double(),
    )


def test_one_of_is_a_teacher_s_own_answer_and_each_has_its_turn() -> None:
    three, draws = logits(2, 3), generator(4)
    turns = []
    for _ in range(300):
        answer = consensus.one_of(three, draws)
        [turn] = [k for k in range(3) if torch.equal(answer, three[k])]
        turns.append(turn)
    assert all(70 < turns.count(k) < 130 for k in range(3))


def test_an_ensemble_answers_by_any_consensus_on_any_number_of_threads() -> None:
    members, x = [net(1), net(2, 5)], rows(150).x
    by_class = partial(consensus.by_class, counts=COUNTS)
    for average in ("confidence", by_class):
        answers = []
        for threads in (1, 2):
            with Ensemble(members, threads=threads, average=average) as ensemble:
                answers.append(ensemble.answer(x))
                each = ensemble.logits(x)
        assert torch.equal(*answers)
        how = consensus.average_confidence if average == "confidence" else by_class
        assert torch.equal(answers[0], how(each))


def test_counts_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"counts \(3, 2\): expected \(2, 3\)"):
        consensus.by_class(logits(1), COUNTS.T)
    with pytest.raises(ValueError, match="counts of -1: expected at least 0"):
        consensus.by_class(logits(1), COUNTS - 1)


def test_many_places_a_record_are_as_many_records() -> None:
    places = 2 * torch.randn(2, 3, 4, 5, CLASSES, generator=generator(1)).double()
    flat = places.flatten(1, 3)
    ways = {
        **{
            of: partial(consensus.average, of=of)
            for of in ("logits", "probabilities", "confidence")
        },
        "class": partial(consensus.by_class, counts=COUNTS),
        "pairs": partial(by_pairs, counts=COUNTS, absolute=0.01, own_error=0),
        "weighted": partial(consensus.weighted, weights=torch.tensor([0.3, 0.7]).double()),
    }
    for name, agree in ways.items():
        found = agree(places)
        assert found.shape == places.shape[1:], name
        torch.testing.assert_close(found.flatten(0, 2), agree(flat), msg=name)


def test_an_ensemble_of_models_with_many_places_answers_with_them() -> None:
    teachers = [nn.Conv1d(2, 3, 1), nn.Conv1d(2, 3, 1)]
    x = torch.rand(70, 2, 5, generator=generator(2))
    with Ensemble(teachers) as ensemble:
        found = ensemble.answer(x)
    torch.testing.assert_close(found, (teachers[0](x) + teachers[1](x)).detach() / 2)
