"""Book-keeping: lengths, rows and clipped sums of every layer, against a loop in float64."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedkd.config import Optimisation
from fedkd.data.types import Samples
from fedkd.learning.dp import sgd
from fedkd.learning.dp.convolved import Convolved
from fedkd.learning.dp.forms import Lookups, Products, Tied, whole
from fedkd.learning.dp.per_sample import PerSample
from fedkd.models.text.tied import TiedLinear
from fedkd.privacy.gradients import Built, Gradients
from fedkd.privacy.mechanisms import clipped_sum

sizes = st.integers(1, 4)


class Zoo(nn.Module):
    """A layer on float inputs, after which all that it gives counts, each number otherwise."""

    def __init__(self, layer: nn.Module, *, twice: bool = False) -> None:
        super().__init__()
        self.layer, self.twice = layer, twice

    def forward(self, x: Tensor) -> Tensor:
        said = self.layer(x.sin()) + self.layer(x) if self.twice else self.layer(x)
        said = said.flatten(1)
        return (said * torch.linspace(0.5, 2.0, said.shape[1]).to(said)).sin()


class Words(nn.Module):
    """Looks rows up, mixes places, and asks the same rows again."""

    def __init__(self, rows: int, width: int, padding: int | None) -> None:
        super().__init__()
        self.words = nn.Embedding(rows, width, padding_idx=padding)
        self.mixed = nn.Linear(width, width)
        self.asked = TiedLinear(rows)

    def forward(self, x: Tensor) -> Tensor:
        states = self.mixed(self.words(x)).tanh()
        return self.asked(states + states.mean(dim=1, keepdim=True), self.words.weight).flatten(1)


def value(said: Tensor, _: Tensor) -> Tensor:
    return said.square().sum(dim=1) + said.sum(dim=1)


def check(model: nn.Module, x: Tensor) -> list[Gradients]:
    """Lengths and sums, of all records and where some are clipped, against one by one."""
    model = model.double()
    own = list(model.parameters())
    with PerSample(model) as per_sample:
        forms = per_sample.forms(x, x, value)
    wanted = []
    for row in torch.split(x, 1):
        slopes = torch.autograd.grad(value(model(row), row).sum(), own, materialize_grads=True)
        wanted.append(torch.cat([each.flatten() for each in slopes]))
    right = torch.stack(wanted)
    built = torch.cat([whole(each).flatten(1) for each in forms], dim=1)
    torch.testing.assert_close(built, right, rtol=1e-6, atol=1e-9)
    lengths = torch.stack([each.lengths() for each in forms]).norm(dim=0)
    torch.testing.assert_close(lengths, right.norm(dim=1), rtol=1e-6, atol=1e-6)
    clip = max(float(right.norm(dim=1).median()), 1e-6)
    weights = (clip / right.norm(dim=1)).clamp(max=1)
    sums = torch.cat([each.flatten() for each in clipped_sum(forms, clip)])
    torch.testing.assert_close(sums, weights @ right, rtol=1e-6, atol=1e-8)
    return forms


def inputs(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


@settings(max_examples=25, deadline=None)
@given(
    places=st.lists(sizes, max_size=2), entered=sizes, given=sizes, twice=st.booleans(), seed=sizes
)
def test_linear(places: list[int], entered: int, given: int, twice: bool, seed: int) -> None:
    layer = nn.Linear(entered, entered if twice else given, bias=seed > 1)
    check(Zoo(layer, twice=twice), inputs(3, *places, entered, seed=seed))


@settings(max_examples=40, deadline=None)
@given(
    axes=st.integers(1, 3),
    groups=st.integers(1, 2),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    padding=st.sampled_from([0, 1, "same"]),
    mode=st.sampled_from(["zeros", "circular", "reflect", "replicate"]),
    seed=sizes,
)
def test_convolutions(
    axes: int,
    groups: int,
    kernel: int,
    stride: int,
    dilation: int,
    padding: Any,
    mode: str,
    seed: int,
) -> None:
    kinds: list[Any] = [nn.Conv1d, nn.Conv2d, nn.Conv3d]
    layer = kinds[axes - 1](
        2,
        2 * groups,
        3 if padding == "same" else kernel,  # torch warns of even ones
        stride=1 if padding == "same" else stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=seed > 1,
        padding_mode=mode,
    )
    check(Zoo(layer), inputs(3, 2, *[6, 5, 5][:axes], seed=seed))


@pytest.mark.parametrize(("stride", "dilation", "side"), [(1, 1, 3), (2, 1, 5), (1, 2, 2)])
@pytest.mark.parametrize("twice", [False, True])
def test_convolutions_of_few_places(stride: int, dilation: int, side: int, twice: bool) -> None:
    layer = nn.Conv2d(9, 12, 3, stride=stride, dilation=dilation, padding=dilation)
    weight, _ = check(Zoo(layer, twice=twice), inputs(4, 9, side, side, seed=1))
    assert isinstance(weight, Built if twice else Convolved)


NORMS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "group": (lambda: nn.GroupNorm(2, 4), (4, 3, 2)),
    "group of rows": (lambda: nn.GroupNorm(2, 4), (4,)),
    "layer": (lambda: nn.LayerNorm(4), (3, 4)),
    "layer of two axes": (lambda: nn.LayerNorm((3, 4)), (2, 3, 4)),
    "root mean square": (lambda: nn.RMSNorm((3, 4)), (2, 3, 4)),
    "instance 1d": (lambda: nn.InstanceNorm1d(4, affine=True), (4, 5)),
    "instance 2d": (lambda: nn.InstanceNorm2d(4, affine=True), (4, 3, 2)),
    "instance 3d": (lambda: nn.InstanceNorm3d(2, affine=True), (2, 3, 2, 2)),
}


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("twice", [False, True])
def test_norms(name: str, twice: bool) -> None:
    build, shape = NORMS[name]
    check(Zoo(build(), twice=twice), 3 * inputs(4, *shape, seed=1) + 2)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(2, 9),
    width=sizes,
    places=st.integers(1, 7),
    padding=st.sampled_from([None, 0, 1]),
    seed=sizes,
)
def test_tied_words(rows: int, width: int, places: int, padding: int | None, seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    x = torch.randint(rows, (4, places), generator=draws)
    check(Words(rows, width, padding), x)


def test_the_forms_are_those_that_cost_least() -> None:
    words, mixed, bias, asked = check(Words(9, 40, None), torch.tensor([[1, 2, 1], [0, 0, 5]]))
    assert [type(each) for each in (words, mixed, bias, asked)] == [Tied, Products, Built, Built]
    (lookups,) = check(
        nn.Sequential(nn.Embedding(9, 2), nn.Flatten()), torch.tensor([[1, 1], [2, 3]])
    )
    assert isinstance(lookups, Lookups)
    long, _ = check(Zoo(nn.Linear(2, 2)), inputs(2, 90, 2, seed=0))
    assert isinstance(long, Built)


def test_what_cancels_is_added_up_before_it_is_measured() -> None:
    """Products of float32 would tell a length of 0, or one of rounding errors."""
    draws = torch.Generator().manual_seed(0)
    slopes, entered = torch.randn(3, 2, 30, generator=draws), torch.randn(3, 2, 40, generator=draws)
    slopes[1] *= 1e4
    slopes[1, 1] = -slopes[1, 0]
    entered[1, 1] = entered[1, 0] + 1e-7 * entered[1, 1]
    form = Products(slopes, entered)
    assert form.ghost
    exact = Products(slopes.double(), entered.double())
    (found,), (wanted,) = clipped_sum([form], 1e-3), clipped_sum([whole(form)], 1e-3)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-8)
    moved = found - clipped_sum([Products(slopes[::2], entered[::2])], 1e-3)[0]
    assert float(moved.norm()) <= 1e-3 * (1 + 1e-4)
    assert float(exact.lengths()[1]) > 1e-3  # or it would not be clipped


@pytest.mark.parametrize("automatic", [False, True])
@pytest.mark.parametrize("loud", [1e5, 1e7, 1e10])
@pytest.mark.parametrize("weight", [1e-6, 1.0])
def test_words_that_cancel_are_added_up_where_a_linear_layer_shares_them(
    loud: float, weight: float, *, automatic: bool
) -> None:
    """A word there eight times, of which the slopes come to nothing but rounding."""
    draws = torch.Generator().manual_seed(0)
    slopes = loud * torch.randn(30, 8, 16, generator=draws)
    slopes[:, -1] = -slopes[:, :-1].double().sum(dim=1)
    for row in range(30):
        lookups = Lookups(torch.full((1, 8), 2), slopes[row : row + 1], 5)
        linear = Products(weight * torch.randn(1, 1, 5, generator=draws), torch.ones(1, 1, 16))
        (moved,) = clipped_sum([Tied(lookups, linear)], 1.0, automatic=automatic)
        assert float(moved.double().norm()) <= 1 + 1e-4


def test_rounding_of_long_products_is_no_matter_of_their_length() -> None:
    """Entries that are all rounded down, of which most cancels."""
    draws = torch.Generator().manual_seed(0)
    entered = torch.full((1, 2, 65_536), 0.3517)
    entered[0, 1] += 0.03 * torch.randn(65_536, generator=draws)
    form = Products(torch.tensor([[[1.0], [-1.0]]]), entered)
    assert float(form.bounds()) < 32 * float(form.lengths())
    (moved,) = clipped_sum([form], 1.0)
    assert abs(float(moved.double().norm()) - 1) < 4e-4


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 3e38, 1e30, 1e-30])
@pytest.mark.parametrize("what", ["slopes", "inputs"])
def test_poison_in_a_form_counts_as_it_does_in_the_whole(poison: float, what: str) -> None:
    draws = torch.Generator().manual_seed(0)
    parts = {
        "slopes": torch.randn(4, 3, 5, generator=draws),
        "inputs": torch.randn(4, 3, 6, generator=draws),
    }
    parts[what][2] *= poison
    form = Products(**parts)
    found, wanted = clipped_sum([form], 0.1)[0], clipped_sum([whole(form)], 0.1)[0]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


class Own(nn.Module):
    """A layer that no rule knows."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.inner = nn.Parameter(torch.ones(3)), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x * self.scale) + self.scale


class Louder(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize("build", [Own, lambda: Louder(3, 3), lambda: nn.PReLU(3)])
def test_a_layer_without_a_rule_takes_the_long_way_and_is_named_once(
    build: Callable[[], nn.Module], caplog: pytest.LogCaptureFixture
) -> None:
    check(Zoo(build()), inputs(4, 3, seed=1))
    model = nn.Sequential(nn.Linear(3, 3), build(), nn.Linear(3, 2))
    samples = Samples(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))
    with caplog.at_level(logging.WARNING, logger="fedkd"):
        sgd.train(model, samples, Optimisation(epochs=3), sgd.Noise(1.0, 1.0, 1.0, 4))
    (record,) = caplog.records
    assert "the whole gradient of each record for 1 (" in record.getMessage()
