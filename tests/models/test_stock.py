"""Models that are built once and used again are as those that are built, and tell of nobody."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from fedkd import models, rng, tasks
from fedkd.config import ModelSpec, TaskChoice
from fedkd.models import text
from fedkd.models.copies import Copier
from fedkd.models.stock import Stock
from fedkd.tasks import Vocabulary

IMAGES = tasks.build(TaskChoice(), inputs=(1, 12, 12), names=("a", "b", "c"))
TEXTS = tasks.build(
    TaskChoice(),
    inputs=(9,),
    names=("a", "b", "c"),
    vocabularies={"": Vocabulary(size=40, padding=3, start=0, end=1)},
)
OF_IMAGES = ("dense-cnn", "lenet5", "mlp", "resnet8", "scattering", "random-filters")
OF_TEXTS = tuple(name for name, each in text.BUILT_IN.items() if "classes" in each.answers)
CASES = [(name, IMAGES) for name in OF_IMAGES] + [(name, TEXTS) for name in OF_TEXTS]


def stock(task=IMAGES):
    return Stock(5, task.inputs, 3, None, task)


def batch(task):
    return task.blank(4) if task is TEXTS else torch.rand(4, *task.inputs)


def trained_a_step(model, x):
    """A model that everything has happened to that happens to one in a round."""
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    model.register_forward_hook(lambda *_: None)
    model.train()(x).square().sum().backward()
    optimiser.step()
    return model


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_a_model_is_as_it_would_be_built_whatever_happened_to_one_before(name, task):
    spec, shelf, x = ModelSpec(name=name), stock(task), batch(task)
    draws = rng.stream(5, purpose="student")
    fresh = models.build(spec, shape=task.inputs, classes=3, generator=draws, task=task)
    first = shelf.build(spec, purpose="student")
    assert same(first.state_dict(), fresh.state_dict())
    expected = fresh.eval()(x)
    trained_a_step(first, x)
    second = shelf.build(spec, purpose="student")
    assert same(second.state_dict(), fresh.state_dict())
    assert torch.equal(second.eval()(x), expected)  # what is in no state dict, too
    assert all(each.grad is None and each.requires_grad for each in second.parameters())
    assert not any(layer._forward_hooks for layer in second.modules())
    assert [type(each) for each in second.modules()] == [type(each) for each in fresh.modules()]
    held = {each.data_ptr() for each in first.state_dict().values()}
    assert held.isdisjoint(each.data_ptr() for each in second.state_dict().values())


@pytest.mark.parametrize(("name", "task"), CASES)
def test_a_model_of_given_weights_is_as_one_that_loaded_them(name, task):
    spec, shelf, x = ModelSpec(name=name), stock(task), batch(task)
    loaded = shelf.build(spec, purpose="specification")
    weights = shelf.build(spec, purpose="student").state_dict()
    loaded.load_state_dict(weights)
    held = shelf.holding(weights, spec)
    assert list(held.state_dict()) == list(loaded.state_dict())
    assert same(held.state_dict(), loaded.state_dict())
    assert torch.equal(held.eval()(x), loaded.eval()(x))
    flags = [[each.requires_grad for each in one.parameters()] for one in (held, loaded)]
    assert flags[0] == flags[1]
    memory = {each.data_ptr() for each in weights.values()}
    assert memory.isdisjoint(each.data_ptr() for each in held.state_dict().values())
    first, *_ = weights
    assert shelf.holding({n: t for n, t in weights.items() if n != first}, spec) is None
    with pytest.raises(RuntimeError, match="size mismatch"):
        shelf.holding({**weights, first: weights[first][None]}, spec)
    other = {n: t.double() for n, t in weights.items()}
    assert same(shelf.holding(other, spec).state_dict(), loaded.state_dict())


def test_tied_weights_hold_what_comes_last():
    tied = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    tied[1].weight = tied[0].weight
    held = Copier(tied).holding({"0.weight": torch.zeros(3, 3), "1.weight": torch.ones(3, 3)})
    assert held[0].weight is held[1].weight
    assert torch.equal(held[0].weight, torch.ones(3, 3))


def test_purposes_and_clients_have_their_own_draws():
    shelf, spec = stock(), ModelSpec(name="mlp")
    drawn = [
        shelf.build(spec, purpose=purpose, client=client).state_dict()["classifier.weight"]
        for purpose, client in (("student", None), ("group", None), ("teacher", 0), ("teacher", 1))
    ]
    assert len({each.sum().item() for each in drawn}) == 4
    other = ModelSpec.model_validate({"name": "mlp", "hidden": [7]})
    assert shelf.build(other, purpose="student").hidden1.out_features == 7


def test_tied_weights_stay_tied_in_a_copy():
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    (copied := Copier(tied)())[0].weight.data.zero_()
    assert copied[1].weight is copied[0].weight
    assert tied[0].weight.abs().sum() > 0
    assert len(list(copied.parameters())) == 3


class Nosy(nn.Module):
    """A user's model, which keeps what it sees in places that no state dict has."""

    seen: list[torch.Tensor]

    def __init__(self, shape, classes):
        super().__init__()
        self.seen = []
        self.layer = nn.Linear(torch.Size(shape).numel(), classes)
        self.register_forward_hook(lambda _module, inputs, _: self.seen.append(inputs[0]))

    def forward(self, x):
        return self.layer(x.flatten(1))


@pytest.mark.parametrize("lend", [True, False])
def test_a_users_own_model_is_built_anew_each_time(lend):
    spec, shelf = ModelSpec(name=f"{__name__}:Nosy"), stock()
    get = shelf.to_ask if lend else lambda spec: shelf.build(spec, purpose="teacher", client=0)
    first, built = get(spec), 1  # it saw the two blank records of the trial
    first(torch.rand(1, 1, 12, 12))
    second = get(spec)
    assert len(first.seen) == built + 1
    assert len(second.seen) == built
    assert second is not first


def test_each_thread_is_lent_a_model_of_its_own_in_evaluation_after_evaluation():
    shelf, spec = stock(), ModelSpec(name="resnet8")
    together = threading.Barrier(2)

    def borrow(_):
        together.wait()
        return shelf.to_ask(spec), shelf.to_ask(spec)

    with ThreadPoolExecutor(2) as pool:
        (one, again), (other, _) = pool.map(borrow, range(2))
    assert one is again
    assert one is not other
    before = {name: each.clone() for name, each in one.state_dict().items()}
    with torch.no_grad():
        one.eval()(torch.rand(4, 1, 12, 12))
    assert same(one.state_dict(), before)
