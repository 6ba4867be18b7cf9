import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedkd.config import OPTIMISERS, Optimisation
from fedkd.errors import FederationError
from fedkd.learning import optim
from fedkd.learning.loop import fit


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model(seed: int = 0) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))
    for parameter in net.parameters():
        nn.init.normal_(parameter, generator=generator(seed))
    return net


def data(rows: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(rows, 3, generator=generator(7))
    return x, (x[:, 0] > 0).long()


def cross_entropy(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(net(x), y, reduction="none")


class Recorder:
    """A loss that writes down the rows of every batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, net: nn.Module, rows: Tensor) -> Tensor:
        self.batches.append(rows.tolist())
        return net(torch.ones(2, 3)).sum() + rows.float().mean()


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 30), size=st.integers(1, 31), epochs=st.integers(1, 3))
def test_every_epoch_visits_every_row_once_but_for_a_lone_last_one(
    rows: int, size: int, epochs: int
) -> None:
    loss = Recorder()
    how = Optimisation(epochs=epochs, batch_size=size, learning_rate=1e-6)
    fit(model(), [torch.arange(rows)], loss, how, generator())
    full, rest = divmod(rows, size)
    skipped = rest == 1 and full > 0
    sizes = [size] * full + ([rest] if rest and not skipped else [])
    assert [len(batch) for batch in loss.batches] == sizes * epochs
    for epoch in range(epochs):
        part = loss.batches[epoch * len(sizes) : (epoch + 1) * len(sizes)]
        visited = [row for batch in part for row in batch]
        assert len(set(visited)) == len(visited) == rows - skipped


def test_it_equals_the_textbook_loop_and_reports_mean_losses() -> None:
    x, y = data(9)
    how = Optimisation(epochs=3, batch_size=4, learning_rate=0.05)
    net, plain = model(), model()
    reported: list[tuple[int, float]] = []
    losses = fit(
        net, (x, y), cross_entropy, how, generator(1), on_epoch=lambda *e: reported.append(e)
    )
    optimiser = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9)
    shuffles, expected = generator(1), []
    plain.train()
    for _ in range(3):
        total = 0.0
        for rows in torch.randperm(9, generator=shuffles)[:8].split(4):
            value = nn.functional.cross_entropy(plain(x[rows]), y[rows])
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            total += value.item() * len(rows)
        expected.append(total / 8)
    assert losses == pytest.approx(expected)
    assert reported == list(enumerate(losses, start=1))
    for found, want in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, want)
    assert not any(module.training for module in net.modules())


def test_cosine_schedule_falls_from_the_full_rate_to_almost_nothing() -> None:
    how = Optimisation(epochs=2, batch_size=2, learning_rate=0.5, schedule="cosine")
    net = model()
    optimiser = optim.build(net.parameters(), how)
    rates: list[float] = []

    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        rates.append(optimiser.param_groups[0]["lr"])
        return cross_entropy(net, x, y)

    fit(net, data(6), loss, how, generator(), optimiser=optimiser)
    assert rates == pytest.approx([0.25 * (1 + math.cos(math.pi * k / 6)) for k in range(6)])


def test_a_warm_up_rises_linearly_under_the_schedule() -> None:
    """As torch chains its own two schedules, here for 6 steps with a warm-up of 3."""
    how = Optimisation(
        epochs=2, batch_size=2, learning_rate=0.5, schedule="cosine", warmup=1, momentum=0.0
    )
    net, plain = model(), model()
    fit(net, data(6), cross_entropy, how, generator(2))

    optimiser = torch.optim.SGD(plain.parameters(), lr=0.5)
    rate = torch.optim.lr_scheduler.ChainedScheduler(
        [
            torch.optim.lr_scheduler.LinearLR(optimiser, start_factor=0.01, total_iters=3),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=6),
        ]
    )
    shuffles, (x, y) = generator(2), data(6)
    plain.train()
    for _ in range(2):
        for rows in torch.randperm(6, generator=shuffles).split(2):
            optimiser.zero_grad()
            nn.functional.cross_entropy(plain(x[rows]), y[rows]).backward()
            optimiser.step()
            rate.step()
    for found, want in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, want)


def test_a_step_s_gradient_is_clipped_over_all_parameters_together() -> None:
    how = Optimisation(epochs=1, batch_size=6, learning_rate=0.1, momentum=0.0, clip_norm=0.01)
    net, plain = model(), model()
    fit(net, data(6), cross_entropy, how, generator())
    plain.train()
    x, y = data(6)
    rows = torch.randperm(6, generator=generator())
    nn.functional.cross_entropy(plain(x[rows]), y[rows]).backward()
    gradients = [parameter.grad for parameter in plain.parameters() if parameter.grad is not None]
    norm = torch.cat([each.flatten() for each in gradients]).norm()
    assert norm > 0.1
    for found, start, gradient in zip(net.parameters(), plain.parameters(), gradients, strict=True):
        torch.testing.assert_close(found, start - 0.1 * 0.01 * gradient / norm, rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", OPTIMISERS)
def test_an_optimiser_steps_as_torch_s_own(kind: str) -> None:
    how = Optimisation(
        epochs=2, batch_size=3, optimiser=kind, learning_rate=0.02, weight_decay=0.1, momentum=0.5
    )
    net, plain = model(), model()
    fit(net, data(6), cross_entropy, how, generator(4))
    own = {"momentum": 0.5} if kind == "sgd" else {}
    [theirs] = [each for each in vars(torch.optim).values() if _named(each, kind)]
    optimiser = theirs(plain.parameters(), lr=0.02, weight_decay=0.1, **own)
    shuffles, (x, y) = generator(4), data(6)
    plain.train()
    for _ in range(2):
        for rows in torch.randperm(6, generator=shuffles).split(3):
            optimiser.zero_grad()
            nn.functional.cross_entropy(plain(x[rows]), y[rows]).backward()
            optimiser.step()
    for found, want in zip(net.parameters(), plain.parameters(), strict=True):
        assert torch.equal(found, want)


def _named(value: Any, kind: str) -> bool:
    return (
        isinstance(value, type)
        and issubclass(value, torch.optim.Optimizer)
        and value.__name__.lower() == kind
    )


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("kind", OPTIMISERS)
def test_a_packed_optimiser_goes_on_as_if_nothing_had_happened(kind: str, momentum: float) -> None:
    how = Optimisation(epochs=4, batch_size=4, optimiser=kind, momentum=momentum, weight_decay=0.01)
    half = how.model_copy(update={"epochs": 2})
    straight, resumed = model(), model()
    fit(straight, data(11), cross_entropy, how, generator(3))

    shuffles = generator(3)
    first = optim.build(resumed.parameters(), half)
    assert optim.pack(first) == {} or kind == "adagrad"
    fit(resumed, data(11), cross_entropy, half, shuffles, optimiser=first)
    packed = optim.pack(first)
    copy = model(5)
    copy.load_state_dict(resumed.state_dict())
    second = optim.build(copy.parameters(), half)
    optim.unpack(second, packed)
    snapshot = {key: value.clone() for key, value in packed.items()}
    fit(copy, data(11), cross_entropy, half, shuffles, optimiser=second)

    for key, value in straight.state_dict().items():
        assert torch.equal(value, copy.state_dict()[key]), key
    fit(resumed, data(11), cross_entropy, half, shuffles, optimiser=first)
    assert all(torch.equal(value, snapshot[key]) for key, value in packed.items())
    if momentum or kind != "sgd":
        assert packed
        optim.unpack(other := optim.build(copy.parameters(), half), packed)
        assert optim.pack(other).keys() == packed.keys()


@pytest.mark.parametrize("key", ["9.momentum_buffer", "x.momentum_buffer", "0", "-1.step"])
def test_state_of_another_model_is_refused(key: str) -> None:
    optimiser = optim.build(model().parameters(), Optimisation())
    with pytest.raises(ValueError, match=f"optimiser state '{key}'"):
        optim.unpack(optimiser, {key: torch.zeros(5, 3)})
    with pytest.raises(ValueError, match=r"has shape \(2, 2\): expected \(5, 3\)"):
        optim.unpack(optimiser, {"0.momentum_buffer": torch.zeros(2, 2)})


def test_divergence_is_one_clear_error() -> None:
    how = Optimisation(epochs=50, batch_size=5, learning_rate=1e30)
    with pytest.raises(
        FederationError, match=r"training diverged: the loss is .* epoch \d+.*1e\+30"
    ):
        fit(nn.Linear(3, 2), data(10), lambda net, x, _: net(x).square().sum(), how, generator())


@pytest.mark.parametrize("tensors", [(), (torch.zeros(0, 3),), (torch.zeros(3), torch.zeros(4))])
def test_rows_must_match_and_exist(tensors: tuple[Tensor, ...]) -> None:
    with pytest.raises(ValueError, match="expected equally many rows"):
        fit(model(), tensors, cross_entropy, Optimisation(), generator())
