from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedkd.errors import ConfigError
from fedkd.models import call
from fedkd.models.layers import inspect_layers


def subtracted(x: Tensor) -> Tensor:
    return x.sub_(0.5)


def behind_autograd(x: Tensor) -> Tensor:
    x.data.mul_(2)
    return x


def by_numpy(x: Tensor) -> Tensor:
    x.detach().numpy().fill(3)
    return x


class Written(nn.Module):
    """A linear layer behind something that writes."""

    def __init__(self, write: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.write, self.linear = write, nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.write(x))


@pytest.mark.parametrize(
    "write",
    [nn.ReLU(inplace=True), nn.Dropout(inplace=True), subtracted, behind_autograd, by_numpy],
)
def test_a_model_cannot_write_into_the_callers_tensor(write: Callable[[Tensor], Tensor]) -> None:
    model, x = Written(write), torch.randn(6, 4)
    before = x.clone()
    call.answer(model, x)
    call.answer(model, x[2:4])  # rows of it share its memory
    with torch.no_grad():
        call.answer(model, x.t().t())
    assert torch.equal(x, before)


def test_gradients_reach_inputs_that_a_model_overwrites() -> None:
    model, x = Written(nn.ReLU(inplace=True)), torch.randn(6, 4, requires_grad=True)
    (found,) = torch.autograd.grad(call.answer(model, x).sum(), x)
    (wanted,) = torch.autograd.grad(model.linear(x.relu()).sum(), x)
    assert torch.equal(found, wanted)


class Says(nn.Module):
    """A linear layer whose answer comes wrapped."""

    def __init__(self, wrap: Callable[[Tensor], object], outputs: int = 2) -> None:
        super().__init__()
        self.wrap, self.linear = wrap, nn.Linear(4, outputs)

    def forward(self, x: Tensor) -> object:
        return self.wrap(self.linear(x))


@dataclass
class Output:
    """As of Hugging Face, whose loss is None where there are no labels."""

    logits: Tensor
    loss: None = None


class Auxiliary(NamedTuple):
    """As of torchvision's Inception."""

    first: Tensor
    aux_logits: Tensor


@pytest.mark.parametrize(
    "wrap",
    [
        Output,
        lambda z: {"hidden": z + 1, "logits": z},
        lambda z: (z, z + 1),
        lambda z: [z],
        lambda z: Auxiliary(z, z + 1),
    ],
)
def test_logits_come_out_of_whatever_they_are_wrapped_in(wrap: Callable[[Tensor], object]) -> None:
    model, x = Says(wrap), torch.randn(6, 4)
    assert torch.equal(call.answer(model, x), model.linear(x))
    assert inspect_layers(model, (4,)).shapes[""] == (2,)


def test_one_number_an_input_is_the_log_odds_of_the_second_class() -> None:
    model, x = Says(lambda z: z.squeeze(1), outputs=1), torch.randn(6, 4)
    odds = model.linear(x).squeeze(1)
    said = call.answer(model, x).softmax(dim=1)
    torch.testing.assert_close(said, torch.stack([1 - odds.sigmoid(), odds.sigmoid()], dim=1))
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    torch.testing.assert_close(
        F.cross_entropy(call.answer(model, x), labels),
        F.binary_cross_entropy_with_logits(odds, labels.float()),
    )


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda z: {"scores": z}, "'Says' answers 'dict' with scores: expected a tensor"),
        (lambda _z: None, "'Says' answers 'NoneType'"),
        (lambda z: ((z,),), "'Says' answers 'tuple'"),
    ],
)
def test_what_holds_no_logits_is_refused(wrap: Callable[[Tensor], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call.answer(Says(wrap), torch.randn(6, 4))


def test_what_does_not_write_says_the_same_bits() -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), torch.randn(5, 3, 8, 8)
    for each in (x, x.to(memory_format=torch.channels_last), x[::2], x.expand(5, 3, 8, 8)):
        assert torch.equal(call.answer(model, each), model(each))
