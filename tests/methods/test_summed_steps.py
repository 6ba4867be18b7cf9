"""Steps by sums: pooled gradient descent for any partition, each record bounded, each step paid."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from federations import CLASSES, IMAGES, SMALL, Federation, federation, samples, tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor, nn

from fedkd import config
from fedkd.data.types import Samples
from fedkd.errors import ConfigError, FederationError, MessageError
from fedkd.exchange.masking import streams
from fedkd.exchange.messages import Broadcast, Release
from fedkd.federation.secure.messages import MEMBERS
from fedkd.federation.summing import Summing
from fedkd.learning import softmax_regression
from fedkd.learning.closed_form import features_of
from fedkd.methods.core import accounting, protection, sums
from fedkd.methods.summed_steps import CENTRED
from fedkd.privacy.accountant import epsilon
from fedkd.privacy.events import Event, Gaussian

NARROW = {"name": "random-filters", "filters": 4, "pool": 2}
TURNED = {"name": "contrast-filters", "sides": [3], "filters": [4], "pool": 2, "components": 9,
          "shapes": 200}  # fmt: skip
POOLED = samples(70, IMAGES, 5)
OWNER = torch.arange(70) % 3
STEPS, RATE, MOMENTUM = 6, 2.0, 0.8


def built(
    owner: Tensor = OWNER, *, privacy: Any = None, student: Any = NARROW, **params: Any
) -> Federation:
    """A federation in which client owner[i] holds record i of the pooled data."""
    count = int(owner.max()) + 1
    own = {"records": 70, "learning_rate": RATE, "momentum": MOMENTUM, "average": 0.0}
    method = {"name": "summed_steps", **own, **params}
    fed = federation(method, IMAGES, (1,) * count, student=student, count=count, rounds=STEPS)
    fed.data = [POOLED.subset((owner == k).nonzero().flatten()) for k in range(count)]
    if privacy is not None:
        chosen = config.Privacy(unit="record", epsilon=8.0, **privacy)
        experiment = fed.setting.experiment.model_copy(update={"privacy": chosen})
        fed.setting = replace(fed.setting, experiment=experiment)
    return fed


def run(fed: Federation) -> list[Tensor]:
    """The last layer's weights after each round, (F + 1, C) with the bias in the last row."""
    broadcast, found = fed.begin(), []
    for number in range(1, STEPS + 1):
        broadcast, _ = fed.round(number, broadcast)
        layer = fed.student.get_submodule("classifier")
        assert isinstance(layer, nn.Linear)
        found.append(torch.cat([layer.weight.T, layer.bias[None]]).detach().double())
    return found


def descended(fed: Federation, data: Samples) -> list[Tensor]:
    """Torch's own SGD with momentum on the mean cross entropy of all records at one place."""
    phi = F.pad(features_of(fed.student, data.x).double(), (0, 1), value=0.1)
    weights = torch.zeros(phi.shape[1], CLASSES).double().requires_grad_()
    optimiser = torch.optim.SGD([weights], lr=RATE, momentum=MOMENTUM)
    found = []
    for _ in range(STEPS):
        optimiser.zero_grad()
        F.cross_entropy(phi @ weights, data.y).backward()
        optimiser.step()
        found.append(torch.cat([weights[:-1], 0.1 * weights[-1:]]).detach().clone())
    return found


@settings(max_examples=4, deadline=None)
@given(st.integers(1, 5), st.integers(0, 2**31))
def test_without_noise_steps_are_pooled_gradient_descent_s(parties: int, seed: int) -> None:
    owner = torch.randint(parties, (70,), generator=torch.Generator().manual_seed(seed))
    fed = built(owner, precision="float64")
    for found, expected in zip(run(fed), descended(fed, POOLED), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_iterates_are_averaged_over_the_last_rounds() -> None:
    last = run(built(precision="float64"))
    averaged = run(built(precision="float64", average=0.5))
    for before, after in zip(last[:3], averaged[:3], strict=True):
        assert torch.equal(before, after)
    expected = torch.stack(last[3:]).mean(dim=0)
    torch.testing.assert_close(averaged[-1], expected, rtol=1e-5, atol=1e-6)


def test_half_the_bytes_in_float32_hardly_change_the_student() -> None:
    single, double = built(), built(precision="float64")
    sent = [tensors(fed.ask(0, 1, fed.begin()))["gradient"].nbytes for fed in (single, double)]
    assert sent == [size * 17 * CLASSES for size in (4, 8)]
    torch.testing.assert_close(run(single)[-1], run(double)[-1], rtol=1e-4, atol=1e-5)
    assert single.accuracy() > 0.8


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.05, 0.4, 3.0]), st.sampled_from([1.0, 1e3]))
def test_one_record_moves_a_clipped_sum_by_the_clip_at_the_most(
    seed: int, clip: float, scale: float
) -> None:
    draws = torch.Generator().manual_seed(seed)
    features, y = scale * torch.randn(9, 6, generator=draws), torch.arange(9) % CLASSES
    weights = torch.randn(7, CLASSES, generator=draws).double()
    how = {"intercept": 0.1, "clip": clip}
    found = softmax_regression.gradient(features, y, weights, **how)
    without = softmax_regression.gradient(features[1:], y[1:], weights, **how)
    assert float((found - without).norm()) <= clip * (1 + 2**-20)
    # Against autograd's gradient of each record, clipped when it is made.
    total = torch.zeros_like(weights)
    for row, label in zip(F.pad(features.double(), (0, 1), value=0.1), y, strict=True):
        at = weights.clone().requires_grad_()
        F.cross_entropy((row @ at)[None], label[None]).backward()
        assert at.grad is not None
        total += at.grad * min(1.0, clip / float(at.grad.norm().clamp(min=1e-30)))
    torch.testing.assert_close(found, total, rtol=1e-9, atol=1e-12)


def test_a_record_that_is_not_finite_counts_as_none() -> None:
    features, y = torch.randn(5, 4), torch.arange(5) % CLASSES
    features[2, 1], features[3, 0] = float("nan"), float("inf")
    weights, good = torch.randn(5, CLASSES).double(), torch.tensor([0, 1, 4])
    found, expected = (
        softmax_regression.gradient(x, labels, weights, intercept=1.0, clip=0.5)
        for x, labels in ((features, y), (features[good], y[good]))
    )
    torch.testing.assert_close(found, expected)


class Account:
    """An allowance that allows everything, and writes down what it is asked for."""

    def __init__(self) -> None:
        self.spent: list[Event] = []

    def spend(self, event: Event, **_: str) -> None:
        self.spent.append(event)


def private(fed: Federation, round: int = 1, told: Broadcast | None = None) -> tuple[Tensor, Event]:
    """What client 0 sends under an allowance, and what it pays."""
    ctx, account = fed.client_context(0, round), Account()
    ctx.allowance = account  # type: ignore[assignment]
    upload = fed.method.client(ctx, (told or fed.begin()).common)
    [value] = upload.values.values()
    assert isinstance(value.provenance, Release)
    [event] = account.spent
    assert value.provenance.event == event
    return value.data.double(), event


@pytest.mark.parametrize("securely", [False, True])
def test_under_dp_each_round_s_noise_is_new_and_as_the_clip_wants_it(*, securely: bool) -> None:
    shared = {"secure_aggregation": securely, "clip": 0.4}
    fed, exact = (built(privacy={"noise_multiplier": n, **shared}) for n in (3.0, 1e-3))
    told = fed.begin()
    value = softmax_regression.gradient(
        features_of(fed.student, fed.data[0].x), fed.data[0].y,
        told.common["weights"].double(), intercept=0.1, clip=0.4,
    )  # fmt: skip
    near, event = private(exact)
    assert float((near - value).norm()) < 0.02
    what = "sum of gradients" + (", summed over clients" if securely else "")
    assert event == Gaussian(what, 1e-3)
    draws = torch.stack([private(fed, number, told)[0] - value for number in range(1, 41)])
    share = 1 / 3**0.5 if securely else 1.0  # all three must answer
    assert float(draws.std()) == pytest.approx(3.0 * 0.4 * share, rel=0.06)
    assert (draws[0] != draws[1]).all()


def test_the_plan_is_as_many_gaussian_releases_as_steps_at_their_joint_price() -> None:
    for securely in (False, True):
        fed = built(privacy={"noise_multiplier": 9.0, "secure_aggregation": securely})
        [event] = set(accounting.plan(fed.method, fed.setting))
        assert accounting.plan(fed.method, fed.setting) == [event] * STEPS
        assert accounting.round_events(fed.method, fed.setting, [event.what]) == [event]  # type: ignore[union-attr]
    fed = built(privacy={})
    noise = protection.resolve(fed.method, fed.setting).experiment.privacy.noise_multiplier
    assert noise is not None
    steps = [Gaussian("sum of gradients", noise, steps=STEPS)]
    assert epsilon(steps, 1e-5) == pytest.approx(8.0, rel=1e-3)
    one = accounting.noise_needed(built(privacy={}).method, _one_round(fed), _budget(fed))
    assert noise == pytest.approx(one * STEPS**0.5, rel=0.01)  # as of a Gaussian's composition


def _one_round(fed: Federation) -> Any:
    return replace(fed.setting, experiment=fed.setting.experiment.model_copy(update={"rounds": 1}))


def _budget(fed: Federation) -> Any:
    return accounting.budget(fed.setting.experiment.privacy)


def test_a_secure_sum_s_step_is_that_of_the_parts() -> None:
    fed, securely = built(precision="float64"), built(privacy={"secure_aggregation": True})
    told = fed.begin()
    parts = {c: tensors(fed.ask(c, 1, told)) for c in range(3)}
    fed.method.server(fed.server_context(), parts)
    securely.begin()
    ctx = securely.server_context()
    ctx.summed = 3
    summed = torch.stack([each["gradient"] for each in parts.values()]).sum(dim=0)
    securely.method.server(ctx, {0: {"gradient": summed}})
    assert securely.method.expects(securely.setting, 0)["gradient"].dtype == torch.float64
    for name, each in fed.student.state_dict().items():
        assert torch.equal(each, securely.student.state_dict()[name])


def _drawn(part: float, deviation: float) -> NDArray[np.float64]:
    """Chances of what `shortened` makes of a part with noise on it, on a grid of 1/64 of a step."""
    steps = np.arange(-64 * 40, 64 * 40 + 1)
    noise = np.diff(ndtr((np.append(steps, steps[-1] + 1) - 0.5) / (64 * deviation)))
    noisy = torch.from_numpy(part + steps / 64)
    places = sums.shortened(noisy, 1.0).long().numpy() + 50
    return np.bincount(places, noise, minlength=101)


@pytest.mark.parametrize("deviation", [1.0, 3.0])
def test_a_sum_in_16_bits_says_nothing_of_the_parts_that_the_sum_does_not(deviation: float) -> None:
    apart = [
        np.abs(
            np.convolve(_drawn(1.5, deviation), _drawn(-1.25, deviation))
            - np.convolve(_drawn(0.25 - part, deviation), _drawn(part, deviation))
        ).sum()
        for part in (0.125, 0.5, 2.75)
    ]
    # e^-(pi deviation)^2, the bound: 5e-5 at one step, and 3e-39 at three, the least there is.
    assert max(apart) < 4 * math.exp(-((math.pi * deviation) ** 2)) + 1e-14
    assert max(apart) > 1e-14 or deviation > 1


def test_whole_numbers_wrap_around_at_16_bits() -> None:
    noisy = torch.tensor([0.24, -0.26, 2.0**13 + 1, -(2.0**14), 2.0**15 + 0.5]).double()
    assert sums.shortened(noisy, 0.5).tolist() == [0, -1, 2**14 + 2, -(2**15), 1]


def test_two_bytes_a_number_carry_the_same_steps_either_way() -> None:
    half = built(precision="float16")
    told = half.begin()
    assert told.common["weights"].dtype == torch.float16
    assert tensors(half.ask(0, 1, told))["gradient"].nbytes == 2 * 17 * CLASSES
    torch.testing.assert_close(run(half)[-1], run(built())[-1], rtol=0.02, atol=0.02)
    securely: Any = {"secure_aggregation": True, "noise_multiplier": 3.0, "clip": 0.4}
    short, exact = built(privacy=securely, precision="float16"), built(privacy=securely)
    step = sums.short_step(short.setting)
    assert 1 / 6 < step / (3.0 * 0.4 / 3**0.5) <= 1 / 3
    draws = []
    for number in range(1, 41):
        sent, event = private(short, number)
        assert event == Gaussian("sum of gradients, summed over clients", 3.0)
        assert short.method.expects(short.setting, 0)["gradient"].dtype == torch.int16
        draws.append(step * sent)
    mean = private(exact, told=exact.begin())[0]
    noise = torch.stack(draws) - mean
    assert float(noise.std()) == pytest.approx((0.4 * 3.0 / 3**0.5) * 2**0.5, rel=0.15)
    ctx = short.server_context()
    short.begin()
    ctx.summed = 3
    short.method.server(ctx, {0: {"gradient": torch.ones(17, CLASSES).double()}})
    assert float(ctx.state["velocity"].mean()) == pytest.approx(step / 70)


def test_a_step_is_the_same_for_parties_whose_noise_is_a_last_bit_apart() -> None:
    steps = set()
    for noise in (np.nextafter(16, 0), 16.0, np.nextafter(16, 17)):
        hidden = {"secure_aggregation": True, "noise_multiplier": float(noise), "clip": 0.375}
        fed = built(torch.arange(70) % 4, privacy=hidden, precision="float16")
        steps.add(sums.short_step(fed.setting))
    assert steps == {1.0}


def test_more_records_than_16_bits_can_sum_are_refused_before_anything_runs() -> None:
    hidden: Any = {"secure_aggregation": True, "noise_multiplier": 3.0, "clip": 0.4}
    # A step of 1/8: room for 2,048 of what records of one class pull together.
    for records, precision in ((30_000, "float16"), (10**6, "float32")):
        fed = built(privacy=hidden, precision=precision, records=records)
        protection.check_fixed_point(fed.method, fed.setting)
    fed = built(privacy=hidden, precision="float16", records=31_000)
    with pytest.raises(ConfigError, match=r"method\.records is 31,000, .* room for 2,048 beside"):
        protection.check_fixed_point(fed.method, fed.setting)


def test_a_sum_beyond_16_bits_is_told_from_masks_that_stay_on() -> None:
    fed = built(privacy={"secure_aggregation": True, "noise_multiplier": 3.0}, precision="float16")
    party: Any = SimpleNamespace(method=fed.method, setting=fed.setting)
    shape = fed.method.expects(fed.setting, 0)["gradient"].shape
    for most, members, why in ((2**14, 3, ""), (2**14 + 1, 3, "beyond"), (0, 2, "do not come off")):
        summing = Summing(party, 0)
        numbers = {"gradient": torch.zeros(shape, dtype=torch.int16)}
        numbers["gradient"][0, 0] = most
        numbers[MEMBERS] = members * torch.ones(4, dtype=torch.int16)
        summing.words += streams.flat(numbers)
        if not why:
            assert float(summing.total(3)["gradient"].max()) == most
            continue
        with pytest.raises(FederationError, match=why):
            summing.total(3)


def test_16_bits_under_masks_want_noise() -> None:
    fed = built(precision="float16")
    privacy = config.Privacy(secure_aggregation=True)
    bare = fed.setting.experiment.model_copy(update={"privacy": privacy})
    with pytest.raises(ConfigError, match="16 bits of a sum hide nothing without noise"):
        fed.method.check(replace(fed.setting, experiment=bare))


def test_the_server_s_basis_is_everybody_s_and_is_sent_until_all_have_it() -> None:
    fed = built(student=TURNED)
    with torch.no_grad():
        fed.student.get_buffer("basis.channels").mul_(-1)  # as another machine may have found it
    told = fed.begin()
    assert "front/basis.channels" in told.common
    first = tensors(fed.ask(0, 1, told))["gradient"]
    phi = F.pad(features_of(fed.student, fed.data[0].x).double(), (0, 1), value=0.1)
    expected = phi.T @ (1 / CLASSES - F.one_hot(fed.data[0].y, CLASSES).double())
    torch.testing.assert_close(first.double(), expected, rtol=1e-5, atol=1e-5)
    two, _ = fed.round(1, told, [0, 1])
    assert "front/basis.channels" in two.common
    three, _ = fed.round(2, two)
    assert set(three.common) == {"weights"}
    assert tensors(fed.ask(0, 3, three))["gradient"].shape == (10, CLASSES)
    fed.states.clear()
    with pytest.raises(MessageError, match="must take part from the first round on"):
        fed.ask(0, 3, three)


def test_features_are_found_once_for_the_same_records_and_front(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    monkeypatch.setattr(sums, "features_of", lambda *a: asked.append(1) or features_of(*a))
    fed = built()
    told = fed.begin()
    first, again = (tensors(fed.ask(0, number, told))["gradient"] for number in (1, 2))
    assert torch.equal(first, again)
    assert len(asked) == 1
    fed.data[0] = replace(fed.data[0], x=1 - fed.data[0].x)
    assert not torch.equal(tensors(fed.ask(0, 3, told))["gradient"], first)
    assert len(asked) == 2


def test_weights_of_fewer_classes_are_refused_whatever_a_client_holds() -> None:
    fed = built()
    told = {"weights": fed.begin().common["weights"][:, :2]}
    for client in range(3):
        fed.data[client] = fed.data[client].subset((fed.data[client].y < 2).nonzero().flatten())
        with pytest.raises(MessageError, match=r"weights of shape \(17, 2\): expected \(17, 3\)"):
            fed.method.client(fed.client_context(client, 1), told)


def test_a_client_without_records_sends_noise_like_any_other() -> None:
    fed = built(privacy={"noise_multiplier": 3.0, "clip": 0.4})
    fed.data[0] = fed.data[0].subset(torch.arange(0))
    sent, _ = private(fed)
    assert float(sent.std()) == pytest.approx(1.2, rel=0.4)


def test_the_rate_is_the_rule_s_unless_given() -> None:
    for student, rate in ((NARROW, 1.0), (TURNED, CENTRED)):
        fed = built(student=student, learning_rate=None, momentum=0.0, precision="float64")
        fed.round(1, fed.begin())
        state = fed.server_context().state
        expected = -rate * state["velocity"]
        torch.testing.assert_close(state["weights"], expected, rtol=1e-6, atol=1e-9)


def test_steps_without_a_public_number_of_records_are_refused() -> None:
    fed = federation("summed_steps", student=SMALL)
    with pytest.raises(ConfigError, match=r"method\.records is missing"):
        fed.method.check(fed.setting)
