from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fedkd.models import call


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


def test_what_does_not_write_says_the_same_bits() -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), torch.randn(5, 3, 8, 8)
    for each in (x, x.to(memory_format=torch.channels_last), x[::2], x.expand(5, 3, 8, 8)):
        assert torch.equal(call.answer(model, each), model(each))
