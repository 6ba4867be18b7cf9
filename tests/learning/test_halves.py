"""Batches that are learned from in two halves: as whole ones are, and to the same bits."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from fedkd import rng
from fedkd.config import Optimisation
from fedkd.knowledge import label
from fedkd.learning import offline
from fedkd.learning.halves import halves
from fedkd.models.classifiers import DenseCNNOptions, ResNetOptions, dense_cnn, resnet8
from fedkd.rng import torch_default

SHAPE, CLASSES = (1, 8, 8), 3
HOW = Optimisation(epochs=2, batch_size=129, learning_rate=0.1)
KD = partial(label.kd, temperature=4.0)


def plain(shape, classes, _options):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, classes))


MODELS = {
    "without a norm": (plain, None),
    "BatchNorm": (dense_cnn, DenseCNNOptions()),
    "blocks": (resnet8, ResNetOptions(width=4)),
    "GroupNorm": (dense_cnn, DenseCNNOptions(norm="group")),
}


def build(name):
    make, options = MODELS[name]
    with torch_default(rng.stream(3, purpose="model")):
        return make(SHAPE, CLASSES, options)


def learn(model, threads, loss=KD):
    """Two epochs over 300 rows: batches of 129, 129 and, too small to be halved, 42."""
    draw = rng.stream(1, purpose="rows")
    kind = next(model.parameters()).dtype
    x = torch.randn(300, *SHAPE, generator=draw, dtype=kind)
    told = torch.randn(300, CLASSES, generator=draw, dtype=kind)
    shuffles = rng.stream(2, purpose="batches")
    losses = offline.distil(model, x, told, loss, HOW, shuffles, threads=threads)
    return losses, model.state_dict()


@pytest.mark.parametrize("name", MODELS)
def test_halves_teach_what_whole_batches_do(name):
    whole = build(name).double()
    start = copy.deepcopy(whole.state_dict())
    halved = copy.deepcopy(whole)
    losses, right = learn(whole, None)
    found, state = learn(halved, 2)
    assert found == pytest.approx(losses, abs=1e-9)
    for key, value in right.items():
        torch.testing.assert_close(state[key], value, rtol=0, atol=1e-8)
    assert any(not torch.equal(start[key], value) for key, value in right.items())


@pytest.mark.parametrize("name", MODELS)
def test_the_bits_do_not_depend_on_threads(name):
    (one, first), (two, second), (three, third) = (learn(build(name), n) for n in (1, 2, 3))
    assert one == two == three
    for key, value in first.items():
        assert torch.equal(second[key], value)
        assert torch.equal(third[key], value)


class Own(nn.Linear):
    """A layer of a user's, of which nothing is known."""


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(4, 4), nn.Dropout()),
        nn.Sequential(Own(4, 4)),
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False)),
        nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)),
    ],
)
def test_what_draws_or_is_unknown_learns_from_whole_batches(model):
    with halves(model, 2) as both:
        assert both is None


def test_a_model_is_as_it_was_afterwards():
    model = build("BatchNorm")
    with halves(model, 2) as both:
        assert both is not None
        assert "forward" in vars(model.norm1)
    assert "forward" not in vars(model.norm1)
    with halves(model, None) as both:
        assert both is None


def test_a_loss_that_fails_in_one_half_leaves_nobody_waiting():
    def failing(said, _told):
        if len(said) == 64:  # the second half
            raise KeyError("in the second half")
        return said.sum(dim=1)

    for threads in (1, 2):
        with pytest.raises(KeyError, match="in the second half"):
            learn(build("BatchNorm"), threads, failing)


def test_a_loss_of_the_whole_batch_cannot_be_halved():
    with pytest.raises(ValueError, match=r"loss of shape \(\) for 65 rows"):
        learn(build("without a norm"), 2, lambda said, told: (said - told).square().mean())
