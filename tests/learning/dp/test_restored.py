"""What a forward pass writes into a model under DP-SGD: none of it lasts."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedkd.config import Optimisation
from fedkd.data.types import Samples
from fedkd.errors import ConfigError
from fedkd.learning.dp import per_sample, sgd
from fedkd.learning.dp.checks import check_features, check_model

ONE = Optimisation(epochs=1)
SECRET = 777.0
ONE_CLASS = torch.tensor([1.0, 0.0, 0.0])


class Writer(nn.Module):
    """A linear classifier that writes something down once it sees a certain number."""

    def __init__(self, write: Callable[[Any], object]) -> None:
        super().__init__()
        self.write, self.layer = write, nn.Linear(3, 3)
        self.register_buffer("seen", torch.zeros(3))
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(3))
            self.layer.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        if (x == SECRET).any():
            with torch.no_grad():
                self.write(self)
        return self.layer(x) + self.get_buffer("seen") + getattr(self, "another", 0.0)


def replace_buffer(model: Any) -> None:
    model.seen = ONE_CLASS.clone()


def add_buffer(model: Any) -> None:
    model.register_buffer("another", ONE_CLASS.clone())


WRITES = {
    "into a parameter": lambda model: model.layer.weight.mul_(0.5),
    "into a parameter's data": lambda model: model.layer.bias.data.add_(ONE_CLASS),
    "into a buffer": lambda model: model.seen.add_(ONE_CLASS),
    "a buffer anew": replace_buffer,
    "another buffer": add_buffer,
}
each_write = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)


def gradient(model: nn.Module, samples: Samples) -> Tensor:
    """What one step of all samples, with next to no noise, would go by; the model stays."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.0)
    found: list[Tensor] = []

    def keep(*_: object) -> None:
        found.extend(p.grad.flatten() for p in model.parameters() if p.grad is not None)

    optimiser.register_step_pre_hook(keep)
    still = ONE.model_copy(update={"learning_rate": 0.0})
    noise = sgd.Noise(1e-9, clip=0.1, sample_rate=1.0, batch_size=1)
    sgd.train(model, samples, still, noise, optimiser=optimiser)
    return torch.cat(found)


def records(rows: int, *, secret: bool) -> Samples:
    x = torch.rand(rows, 3, generator=torch.Generator().manual_seed(0))
    if secret:
        x = torch.cat([torch.full((1, 3), SECRET), x])
    return Samples(x, torch.arange(len(x)) % 3)


@each_write
def test_nothing_that_a_forward_pass_writes_is_left_in_the_model(
    write: Callable[[Any], object],
) -> None:
    model = Writer(write)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradient(model, records(20, secret=True))
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert [name for name in before if not torch.equal(after[name], before[name])] == []


@each_write
def test_what_one_batch_writes_moves_no_other_batch(
    write: Callable[[Any], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(per_sample, "_MEMORY", 1)  # batches of 8 samples
    both = records(31, secret=True)
    first, rest = both.subset(torch.arange(8)), both.subset(torch.arange(8, 32))
    alone = [gradient(Writer(write), some) for some in (first, rest)]
    torch.testing.assert_close(gradient(Writer(write), both), sum(alone))


class Words(nn.Module):
    """A classifier of three whole numbers below 7."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.layer = nn.Embedding(7, 2, max_norm=1.0), nn.Linear(6, 3)
        with torch.no_grad():
            self.words.weight.fill_(3.0)  # as training may make it: above the norm

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.words(x.long()).flatten(1))


@pytest.mark.parametrize("check", [check_model, check_features])
def test_a_layer_that_shrinks_what_it_looks_up_is_refused_by_name(
    check: Callable[..., None],
) -> None:
    with pytest.raises(ConfigError, match=r"layer 'words', Embedding, .*leave out max_norm = 1\.0"):
        check(Words(), (3,))


def test_an_embedding_above_its_norm_does_not_tell_what_was_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sgd, "check_model", lambda *_, **__: None)  # which refuses it
    model = Words()
    x = torch.tensor([[0.0, 1.0, 2.0]]).repeat(4, 1)
    gradient(model, Samples(x, torch.zeros(4, dtype=torch.long)))
    assert torch.equal(model.words.weight, torch.full((7, 2), 3.0))
