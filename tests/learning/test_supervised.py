import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedkd import models
from fedkd.config import ModelSpec, Optimisation
from fedkd.data.types import Samples
from fedkd.errors import DataError
from fedkd.knowledge import label
from fedkd.learning import evaluate, loop, offline, supervised
from fedkd.tasks.classification import accuracy


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(rows: int = 240, classes: int = 3, seed: int = 0) -> Samples:
    """Separable clouds around the corners of a simplex."""
    draws = generator(seed)
    y = torch.randint(classes, (rows,), generator=draws)
    return Samples(3 * torch.eye(classes)[y] + 0.5 * torch.randn(rows, classes, generator=draws), y)


def mlp(seed: int = 0) -> nn.Module:
    spec = ModelSpec(name="mlp", hidden=[16])
    return models.build(spec, shape=(3,), classes=3, generator=generator(seed))


HOW = Optimisation(epochs=4, batch_size=16, learning_rate=0.05)


def test_it_learns_what_can_be_learned() -> None:
    model, test = mlp(), blobs(seed=1)
    assert evaluate.accuracy(model, test) < 0.8
    losses = supervised.train(model, blobs(), HOW, generator())
    assert losses[-1] < losses[0] / 2
    assert evaluate.accuracy(model, test) > 0.97


def test_a_student_learns_from_answers_alone() -> None:
    teacher, student, x = mlp(), mlp(1), blobs(seed=2).x
    supervised.train(teacher, blobs(), HOW, generator())
    answers = evaluate.answers(teacher, x)
    offline.distil(student, x, answers, label.mae, HOW, generator())
    assert evaluate.accuracy(student, blobs(seed=1)) > 0.97
    # A permuted teacher must be followed into its error: targets are matched row by row.
    offline.distil(student, x, answers.roll(1, dims=1), label.mae, HOW, generator())
    assert evaluate.accuracy(student, blobs(seed=1)) < 0.1


def test_the_same_stream_gives_the_same_weights_and_another_does_not() -> None:
    runs = [mlp(), mlp(), mlp()]
    for model, seed in zip(runs, (1, 1, 2), strict=True):
        supervised.train(model, blobs(), HOW, generator(seed))
    first, again, other = (model.state_dict() for model in runs)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_one_proximal_step_is_the_closed_form() -> None:
    rate, mu, samples = 0.1, 0.7, blobs(12)
    model, anchor = mlp(), mlp(1).state_dict()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    loss = nn.functional.cross_entropy(model(samples.x), samples.y)
    slopes = dict(zip(before, torch.autograd.grad(loss, list(model.parameters())), strict=True))
    how = Optimisation(epochs=1, batch_size=12, learning_rate=rate, momentum=0.0)
    reported = supervised.train(model, samples, how, generator(), anchor=anchor, proximal=mu)
    distance = sum((value - anchor[name]).square().sum().item() for name, value in before.items())
    assert reported == [pytest.approx(loss.item() + mu / 2 * distance, rel=1e-5)]
    for name, value in model.named_parameters():
        slope = slopes[name] + mu * (before[name] - anchor[name])
        torch.testing.assert_close(value, before[name] - rate * slope)


def test_an_anchor_without_mu_changes_nothing() -> None:
    free, anchored = mlp(), mlp()
    supervised.train(free, blobs(), HOW, generator())
    supervised.train(anchored, blobs(), HOW, generator(), anchor=mlp(1).state_dict())
    for a, b in zip(free.parameters(), anchored.parameters(), strict=True):
        assert torch.equal(a, b)


def test_mu_needs_an_anchor_for_every_parameter() -> None:
    anchor = mlp().state_dict()
    del anchor["classifier.bias"]
    with pytest.raises(ValueError, match=r"missing: classifier\.bias"):
        supervised.train(mlp(), blobs(), HOW, generator(), anchor=anchor, proximal=0.1)
    with pytest.raises(ValueError, match=r"missing: hidden1\.weight"):
        supervised.train(mlp(), blobs(), HOW, generator(), proximal=0.1)
    with pytest.raises(ValueError, match="proximal=-1"):
        supervised.train(mlp(), blobs(), HOW, generator(), anchor=mlp().state_dict(), proximal=-1)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=8).filter(any))
def test_balanced_softmax_adds_the_logarithm_of_each_class_s_share(counts: list[int]) -> None:
    found = supervised.balanced_offset(torch.tensor(counts))
    assert found.dtype == torch.float32
    expected = [math.log(n / sum(counts)) if n else -30.0 for n in counts]
    assert found.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_counts_that_are_all_0_favour_no_class() -> None:
    assert supervised.balanced_offset(torch.zeros(3).long()).tolist() == [-30.0] * 3


def test_an_offset_is_a_shift_of_the_last_bias_that_is_gone_afterwards() -> None:
    offset, plain, shifted = torch.tensor([0.5, -3.0, 1.0]), mlp(), mlp()
    with torch.no_grad():
        shifted.get_parameter("classifier.bias").add_(offset)
    losses = [
        supervised.train(plain, blobs(), HOW, generator(), offset=offset),
        supervised.train(shifted, blobs(), HOW, generator()),
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    with torch.no_grad():
        shifted.get_parameter("classifier.bias").sub_(offset)
    for one, other in zip(plain.parameters(), shifted.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_without_an_offset_it_is_plain_cross_entropy_to_the_bit() -> None:
    plain, own = mlp(), mlp()
    supervised.train(plain, blobs(), HOW, generator(), offset=None)
    tensors = (blobs().x, blobs().y)
    loop.fit(own, tensors, lambda m, x, y: F.cross_entropy(m(x), y), HOW, generator())
    for one, other in zip(plain.parameters(), own.parameters(), strict=True):
        assert torch.equal(one, other)


def test_with_the_balanced_offset_a_bias_learns_no_class_prior() -> None:
    """Inputs that say nothing: the closed form is a bias of 0, and of the log prior without."""
    y = torch.tensor([0] * 12 + [1] * 3 + [2])
    prior = supervised.balanced_offset(torch.bincount(y))
    how = Optimisation(epochs=400, batch_size=len(y), learning_rate=0.5, momentum=0.9)
    found = {}
    for name, offset in (("balanced", prior), ("plain", None)):
        model = nn.Linear(2, 3)
        nn.init.zeros_(model.bias)
        samples = Samples(torch.zeros(len(y), 2), y)
        supervised.train(model, samples, how, generator(), offset=offset)
        found[name] = model.bias.detach().log_softmax(dim=0)
    torch.testing.assert_close(found["balanced"], torch.full((3,), -math.log(3)))
    torch.testing.assert_close(found["plain"], prior, rtol=1e-3, atol=1e-3)


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 20), batch_size=st.integers(1, 25))
def test_logits_do_not_depend_on_batches_and_leave_every_mode(rows: int, batch_size: int) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    model[1].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x = torch.randn(rows, 3, generator=generator())
    found = evaluate.answers(model, x, batch_size=batch_size)
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    torch.testing.assert_close(found, model.eval()(x))
    assert not found.requires_grad
    assert not found.is_inference()


@settings(max_examples=20, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=20))
def test_counts_and_accuracy_are_a_count(pairs: list[tuple[int, int]]) -> None:
    predicted, true = zip(*pairs, strict=True)
    x = torch.eye(5)[list(predicted)]
    samples = Samples(x, torch.tensor(true))
    expected = [sum(p == t == label for p, t in pairs) for label in range(5)]
    for model in (x, nn.Identity()):
        scores = [accuracy(5)]
        counted = evaluate.tallies(model, samples, scores, batch_size=3)
        assert counted["accuracy"].tolist() == expected
        found = evaluate.score(model, samples, scores)
        assert found["accuracy"] == sum(expected) / len(pairs)
        assert evaluate.accuracy(model, samples) == found["accuracy"]


def test_the_accuracy_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="score of 0 samples"):
        evaluate.accuracy(mlp(), Samples(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)))
