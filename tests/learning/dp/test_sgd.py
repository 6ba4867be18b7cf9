import copy
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.layers import DPGRU, DPLSTM, DPRNN, DPMultiheadAttention
from sources import seeded
from torch import Tensor, nn

from fedkd import models
from fedkd.config import ModelSpec, Optimisation
from fedkd.data.types import Samples
from fedkd.errors import ConfigError, FederationError
from fedkd.knowledge import label
from fedkd.learning import evaluate, supervised
from fedkd.learning.dp import per_sample, sgd
from fedkd.learning.dp.checks import check_model
from fedkd.learning.dp.forms import whole
from fedkd.learning.dp.sgd import Noise, steps, train
from fedkd.models import probes
from fedkd.rng import torch_default

SHAPE, CLASSES = (1, 12, 12), 3
ONE = Optimisation(epochs=1, learning_rate=0.1, momentum=0.0)
ALL = Noise(noise_multiplier=1e-9, clip=1.0, sample_rate=1.0, batch_size=1)

ALLOWED: dict[str, dict[str, Any]] = {
    "mlp": {"name": "mlp", "hidden": [20, 10]},
    "lenet5": {"name": "lenet5"},
    "dense-cnn, group": {"name": "dense-cnn", "norm": "group"},
    "dense-cnn, none": {"name": "dense-cnn", "norm": "none"},
    "resnet8, group": {"name": "resnet8", "norm": "group", "width": 4},
    "scattering": {"name": "scattering", "orientations": 2, "pool": 4},
    "scattering, order 1": {"name": "scattering", "order": 1},
}


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")


LOSSES: dict[str, sgd.Loss] = {
    "cross-entropy": cross_entropy,
    "kd": partial(label.kd, temperature=3.0),
    "soft cross-entropy": label.soft_cross_entropy,
    "mae": label.mae,
}
each_model = pytest.mark.parametrize("name", ALLOWED)
each_loss = pytest.mark.parametrize("loss", LOSSES)


class Recorder(torch.optim.SGD):
    """SGD that writes down every step's gradients and rates."""

    def __init__(self, model: nn.Module, **options: Any) -> None:
        super().__init__(model.parameters(), **{"lr": 0.1, **options})
        self.seen: list[list[Tensor]] = []
        self.rates: list[float] = []
        self.after: Callable[[], None] = lambda: None

    def step(self, closure: Any = None) -> None:
        parameters = self.param_groups[0]["params"]
        self.seen.append([p.grad.clone() for p in parameters if p.grad is not None])
        self.rates.append(self.param_groups[0]["lr"])
        super().step(closure)
        self.after()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(name: str) -> nn.Module:
    spec = ModelSpec.model_validate(ALLOWED[name])
    return models.build(spec, shape=SHAPE, classes=CLASSES, generator=generator())


def images(loss: str, rows: int = 13, seed: int = 0) -> Samples:
    draws = generator(seed)
    x = torch.rand(rows, *SHAPE, generator=draws)
    logits = 3 * torch.randn(rows, CLASSES, generator=draws)
    y = {"cross-entropy": logits.argmax(dim=1), "soft cross-entropy": logits.softmax(dim=1)}
    return Samples(x, y.get(loss, logits))


def vectors(rows: int = 12, seed: int = 0) -> Samples:
    draws = generator(seed)
    y = torch.randint(3, (rows,), generator=draws)
    return Samples(3 * torch.eye(3)[y] + 0.5 * torch.randn(rows, 3, generator=draws), y)


def mlp(seed: int = 0) -> nn.Module:
    spec = ModelSpec(name="mlp", hidden=[16])
    return models.build(spec, shape=(3,), classes=3, generator=generator(seed))


def weights(model: nn.Module) -> Tensor:
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()


def summed(model: nn.Module, samples: Samples, loss: sgd.Loss, clip: float = 1.0) -> Tensor:
    """The clipped sum of one full step, flat, without noise to speak of."""
    recorder = Recorder(model)
    noise = Noise(1e-9, clip, 1.0, batch_size=1)
    train(model, samples, ONE, noise, loss=loss, optimiser=recorder)
    ((*gradients,),) = recorder.seen
    return torch.cat([gradient.flatten() for gradient in gradients])


def slow_gradients(model: nn.Module, samples: Samples, loss: sgd.Loss) -> list[Tensor]:
    """Obviously correct: one sample at a time, by autograd."""
    model.train()
    parameters = [value for value in model.parameters() if value.requires_grad]
    gradients = []
    for row in range(len(samples)):
        one = samples.subset(torch.tensor([row]))
        value = loss(model(one.x), one.y).sum()
        gradient = torch.autograd.grad(value, parameters, materialize_grads=True)
        gradients.append(torch.cat([part.flatten() for part in gradient]))
    return gradients


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small products wait for each other's threads, ten times as long on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models that are allowed are tried out once, by the last test, not each time."""
    monkeypatch.setattr(sgd, "check_model", lambda *_, **__: None)


@each_model
@each_loss
def test_the_clipped_sum_is_that_of_one_sample_at_a_time(
    name: str, loss: str, unchecked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(per_sample, "_MEMORY", 1)  # 13 rows are 8 and 5
    samples = images(loss)
    gradients = slow_gradients(built(name), samples, LOSSES[loss])
    clip = float(torch.stack([g.norm() for g in gradients]).median())  # half of them are clipped
    expected = torch.stack([g * min(1, clip / float(g.norm())) for g in gradients]).sum(dim=0)
    found = summed(built(name), samples, LOSSES[loss], clip)
    assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-5


def moved(name: str, loss: str, clip: float) -> float:
    """How far one huge record moves the sum."""
    samples, more = images(loss), images(loss, 1, seed=1)
    both = Samples(torch.cat([samples.x, 1000 * more.x]), torch.cat([samples.y, more.y]))
    sums = [summed(built(name), some, LOSSES[loss], clip) for some in (samples, both)]
    return float((sums[0] - sums[1]).norm())


@each_model
@each_loss
def test_one_huge_record_moves_the_sum_by_at_most_the_clip(
    name: str, loss: str, unchecked: None
) -> None:
    # And by what the release's grid may add to the clip. A model that is sure of the record's class
    # has no gradient for it.
    assert moved(name, loss, 0.1) <= 0.1 * (1 + 2**-14 + 1e-5)


def test_without_clipping_the_huge_record_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sgd, "clipped_sum", lambda parts, _: [whole(part).sum(0) for part in parts])
    assert moved("mlp", "mae", 0.1) > 1


def test_a_poisoned_record_counts_as_nothing() -> None:
    samples = vectors()
    poisoned = Samples(samples.x.clone(), samples.y)
    poisoned.x[3] = math.nan
    rest = samples.subset(torch.tensor([row for row in range(12) if row != 3]))
    found = [summed(mlp(), some, cross_entropy) for some in (poisoned, rest)]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("rows", [0, 40])
def test_the_noise_is_added_once_a_step_and_has_the_size_that_was_promised(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(per_sample, "_MEMORY", 1)  # 40 rows are five small batches
    model = nn.Linear(300, 300)
    before = weights(model).clone()
    samples = Samples(torch.ones(rows, 300), torch.zeros(rows, dtype=torch.int64))
    noise = Noise(noise_multiplier=1.5, clip=2.0, sample_rate=1.0, batch_size=16)
    train(model, samples, ONE, noise, loss=lambda logits, _: 0 * logits.sum(dim=1))
    change = weights(model) - before
    expected = 0.1 * 1.5 * 2.0 / 16
    assert float(change.std()) == pytest.approx(expected, rel=0.02)
    assert abs(float(change.mean())) < 6 * expected / math.sqrt(len(change))


def test_who_knows_all_seeds_knows_no_mask_and_no_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record more moves these draws for others, so they must not be anybody's to compute."""
    found: list[Tensor] = []

    def kept(sums: list[Tensor], *_: object) -> list[Tensor]:
        found.append(torch.cat([value.flatten() for value in sums]))
        return [torch.zeros_like(value) for value in sums]

    monkeypatch.setattr(sgd, "_protected", kept)
    seen = Optimisation(epochs=1, augment=[{"name": "noise"}])
    for build, how in ((dropout, ONE), (mlp, seen)):
        first = build()
        for model in (copy.deepcopy(first), first):
            with torch_default(generator(3)):
                before = torch.get_rng_state()
                train(model, vectors(20), how, Noise(1.0, 1.0, 1.0, 10), loss=cross_entropy)
                assert torch.equal(torch.get_rng_state(), before)
        assert not torch.allclose(found.pop(), found.pop(), rtol=0.01)


def test_no_digit_of_a_step_tells_how_many_records_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """No record, a batch in float32 and two in float64 leave the same noise on the same zeros."""
    monkeypatch.setattr(sgd, "NoiseSource", seeded)
    monkeypatch.setattr(per_sample, "_MEMORY", 1)  # then eight at once

    def step(rows: int) -> Tensor:
        model = nn.Linear(30_000, 2, bias=False)
        nn.init.zeros_(model.weight)
        samples = Samples(torch.zeros(rows, 30_000), torch.zeros(rows, dtype=torch.int64))
        plain = Optimisation(epochs=1, learning_rate=1.0, momentum=0.0)
        # Of so much noise float32 has not all digits, and a hundredth of it has others again.
        train(model, samples, plain, Noise(8.0, 1.0, 1.0, 100), loss=lambda s, _: 0 * s.sum(dim=1))
        return weights(model)

    none, one, two = step(0), step(1), step(9)
    assert torch.equal(none, one)
    assert torch.equal(two, one)


def test_no_seed_repeats_the_noise_or_is_used_up() -> None:
    """Opacus draws the same noise again after torch.manual_seed: see facts/privacy.md."""
    torch.manual_seed(7)
    before, runs = torch.get_rng_state(), [mlp(), mlp()]
    for model in runs:
        torch.manual_seed(7)
        train(model, vectors(), ONE, Noise(1.0, 1.0, 1.0, 12))
        assert torch.equal(torch.get_rng_state(), before)
    assert float((weights(runs[0]) - weights(runs[1])).abs().min()) > 0


class Attendance:
    """Which records each step takes, by their labels, which are their numbers."""

    def __init__(self, rows: int, noise: Noise, epochs: int = 1) -> None:
        self.steps: list[set[int]] = []
        self._now: set[int] = set()
        model = nn.Linear(2, 2)
        recorder = Recorder(model)
        recorder.after = self._end
        samples, how = Samples(torch.ones(rows, 2), torch.arange(rows)), ONE
        how = how.model_copy(update={"epochs": epochs})
        train(model, samples, how, noise, loss=self._loss, optimiser=recorder)

    def _loss(self, logits: Tensor, y: Tensor) -> Tensor:
        self._now |= set(y.tolist())
        return logits.sum(dim=1)

    def _end(self) -> None:
        self.steps.append(self._now)
        self._now = set()


def test_records_are_taken_each_on_its_own() -> None:
    rows, rate, epochs = 100, 0.1, 60
    taken = Attendance(rows, Noise(1.0, 1.0, rate, 10), epochs).steps
    assert len(taken) == 600
    sizes = torch.tensor([float(len(step)) for step in taken])
    variance = rows * rate * (1 - rate)
    assert abs(float(sizes.mean()) - rows * rate) < 6 * math.sqrt(variance / 600)
    assert abs(float(sizes.var()) - variance) < 6 * variance * math.sqrt(2 / 600)
    by_record = torch.tensor([float(sum(row in step for step in taken)) for row in range(rows)])
    spread = math.sqrt(600 * rate * (1 - rate))
    assert float((by_record - 600 * rate).abs().max()) < 7 * spread
    # Shuffled batches would take each record equally often.
    assert float(by_record.std()) == pytest.approx(spread, rel=0.5)


def test_rate_one_takes_all_each_time() -> None:
    assert Attendance(20, Noise(1.0, 1.0, 1.0, 20), 3).steps == [set(range(20))] * 3


@pytest.mark.parametrize(
    ("epochs", "rate", "expected"),
    [
        (1, 0.1, 10),
        (3, 0.1, 30),
        (1, 1 / 3, 3),
        (7, 0.07, 100),
        (1, 0.3, 4),
        (2, 0.3, 7),
        (5, 1.0, 5),
        (1, 0.999, 2),
        (49, 1 / 49, 2401),
        (1, 1e-6, 1_000_000),
    ],
)
def test_steps_of_awkward_rates(epochs: int, rate: float, expected: int) -> None:
    assert steps(epochs, rate) == expected


@given(epochs=st.integers(1, 300), batch=st.integers(1, 5000), rows=st.integers(1, 100_000))
@settings(max_examples=200, deadline=None)
def test_steps_are_exact_for_every_fraction(epochs: int, batch: int, rows: int) -> None:
    batch = min(batch, rows)
    assert steps(epochs, batch / rows) == -(-epochs * rows // batch)


def test_epochs_are_told_and_the_rate_falls_by_the_schedule() -> None:
    model, told = mlp(), list[int]()
    how = Optimisation(epochs=3, learning_rate=0.5, schedule="cosine")
    recorder = Recorder(model)
    train(model, vectors(), how, Noise(1, 1, 0.3, 4), optimiser=recorder, on_epoch=told.append)
    assert told == [1, 2, 3]
    assert recorder.rates == pytest.approx(
        [0.25 * (1 + math.cos(math.pi * step / 10)) for step in range(10)]
    )


def refuse(message: str, loss: sgd.Loss) -> None:
    with pytest.raises(ValueError, match=message):
        train(mlp(), vectors(), ONE, ALL, loss=loss)


def test_a_loss_that_is_reduced_is_refused() -> None:
    for loss in (F.cross_entropy, partial(F.cross_entropy, reduction="sum")):
        refuse("expected one value per sample", lambda logits, y, loss=loss: loss(logits, y))  # type: ignore[misc]
    refuse("expected one value per sample", lambda logits, y: cross_entropy(logits, y)[:1])


@pytest.mark.parametrize(
    "couple",
    [
        lambda logits, values: values.mean().expand(len(values)),
        lambda logits, values: values / len(values),
        lambda logits, values: values * values.detach().mean(),
        lambda logits, values: values + logits[-1].sum(),
        lambda logits, values: values + logits.sum() - logits.sum().detach(),
        lambda logits, values: values.cumsum(0).flip(0),
        lambda logits, values: (logits - logits.mean(0)).square().sum(1),
        lambda logits, values: logits.square().sum(1) / logits.detach().std(),
    ],
)
def test_a_loss_that_couples_samples_is_refused(couple: Callable[..., Tensor]) -> None:
    refuse("depends on the other samples", lambda x, y: couple(x, cross_entropy(x, y)))


@pytest.mark.parametrize("name", ["noise_multiplier", "clip", "sample_rate", "batch_size"])
@pytest.mark.parametrize("value", [math.inf, 0, -1, math.nan])
def test_parameters_that_void_the_guarantee_are_refused(name: str, value: float) -> None:
    good = {"noise_multiplier": 1.0, "clip": 1.0, "sample_rate": 0.5, "batch_size": 8}
    with pytest.raises(ValueError, match=f"expected {name}={value} finite and > 0"):
        Noise(**{**good, name: value})  # type: ignore[arg-type]


def test_a_rate_above_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected sample_rate=1\.5 <= 1"):
        Noise(1.0, 1.0, 1.5, 8)


def test_an_optimiser_must_have_just_the_models_parameters() -> None:
    model = mlp()
    some = torch.optim.SGD(list(model.parameters())[:1], lr=0.1)
    more = torch.optim.SGD([*model.parameters(), *nn.Linear(2, 2).parameters()], lr=0.1)
    for optimiser in (some, more, Recorder(mlp())):
        with pytest.raises(ValueError, match="holds other parameters than the model"):
            train(model, vectors(), ONE, ALL, optimiser=optimiser)


def test_the_proximal_pull_is_exact_and_needs_an_anchor() -> None:
    model, anchor = mlp(), mlp(1).state_dict()
    expected = 0.7 * (weights(model) - weights(mlp(1)))
    recorder = Recorder(model)
    noise = Noise(1e-9, 1.0, 1.0, batch_size=8)
    train(
        model,
        vectors(0),
        ONE,
        noise,
        optimiser=recorder,
        anchor=anchor,
        proximal=0.7,
    )
    found = torch.cat([part.flatten() for part in recorder.seen[0]])
    torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match=r"missing: hidden1\.weight"):
        train(mlp(), vectors(), ONE, ALL, proximal=0.1)
    with pytest.raises(ValueError, match="proximal=-1"):
        train(mlp(), vectors(), ONE, ALL, anchor=anchor, proximal=-1)


@each_loss
def test_an_offset_is_added_before_the_loss_of_each_record(loss: str) -> None:
    samples, offset = images(loss), torch.tensor([0.5, -3.0, 1.0])
    plain, shifted = built("mlp"), built("mlp")
    with torch.no_grad():
        shifted.get_parameter("classifier.bias").add_(offset)
    gradients = []
    for model, added in ((plain, offset), (shifted, None)):
        recorder = Recorder(model)
        noise = Noise(1e-9, 0.5, 1.0, batch_size=1)
        train(model, samples, ONE, noise, loss=LOSSES[loss], optimiser=recorder, offset=added)
        gradients.append(torch.cat([each.flatten() for each in recorder.seen[0]]))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
    unmoved = summed(built("mlp"), samples, LOSSES[loss], clip=0.5)
    assert (gradients[0] - unmoved).norm() > 0.1 * unmoved.norm()


def test_with_little_noise_it_learns_as_well_as_without_privacy() -> None:
    how, test = Optimisation(epochs=6, batch_size=32, learning_rate=0.2), vectors(300, seed=1)
    private_model, plain = mlp(), mlp()
    train(private_model, vectors(240), how, Noise(0.01, 1.0, 32 / 240, 32))
    supervised.train(plain, vectors(240), how, generator())
    assert evaluate.accuracy(plain, test) > 0.97
    assert evaluate.accuracy(private_model, test) > evaluate.accuracy(plain, test) - 0.02


def test_with_much_noise_it_does_not_learn() -> None:
    model = mlp()
    train(model, vectors(240), ONE, Noise(1e3, 1.0, 32 / 240, 32))
    assert weights(model).norm() > 10 * weights(mlp()).norm()


def traces(model: nn.Module) -> list[list[str]]:
    """The names of everything that hangs on a model's modules and parameters."""
    things = [*model.modules(), *model.parameters()]
    return [sorted(name for name in vars(thing)) for thing in things]


def hooks(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


class Side(nn.Module):
    """A branch whose output is thrown away, and a layer that works twice."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.idle = nn.Linear(3, 3), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.idle(x)
        return self.twice(F.relu(self.twice(x)))


def burst(logits: Tensor, _: Tensor) -> Tensor:
    raise ArithmeticError


def dropout() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.LayerNorm(8), nn.Linear(8, 3))


@pytest.mark.parametrize("build", [mlp, Side, dropout])
@pytest.mark.parametrize("loss", [cross_entropy, burst])
def test_the_model_bears_no_trace(build: Callable[[], nn.Module], loss: sgd.Loss) -> None:
    model = build()
    before, names = traces(model), list(model.state_dict())
    try:
        train(model, vectors(20), ONE, Noise(1.0, 1.0, 0.5, 10), loss=loss)
    except ArithmeticError:
        assert loss is burst
    assert traces(model) == before
    assert hooks(model) == 0
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module.training for module in model.modules())
    assert list(copy.deepcopy(model).state_dict()) == names
    evaluate.answers(model, vectors().x)


def test_a_layer_that_works_twice_and_one_that_idles() -> None:
    model = Side()
    expected = sum(
        gradient / max(1, float(gradient.norm()))
        for gradient in slow_gradients(copy.deepcopy(model), vectors(), cross_entropy)
    )
    torch.testing.assert_close(summed(model, vectors(), cross_entropy), expected)
    left: list[int] = []
    train(
        model,
        vectors(),
        ONE,
        ALL,
        on_epoch=lambda _: left.append("activations" in vars(model.idle)),
    )
    assert left == [False]


def test_frozen_parameters_are_left_alone() -> None:
    model = mlp()
    layer = model.get_submodule("hidden1")
    layer.requires_grad_(requires_grad=False)
    kept = copy.deepcopy(layer.state_dict())
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    head = weights(model.get_submodule("classifier")).clone()
    train(model, vectors(), ONE, ALL, anchor=mlp(1).state_dict(), proximal=0.1)
    assert all(torch.equal(value, kept[name]) for name, value in layer.state_dict().items())
    assert not torch.equal(head, weights(model.get_submodule("classifier")))


def test_divergence_is_one_clear_error() -> None:
    model, how = mlp(), ONE.model_copy(update={"learning_rate": 1e38})
    with pytest.raises(FederationError, match=r"not finite after step 1; lower .*1e\+38"):
        train(model, vectors(), how, Noise(100.0, 1.0, 1.0, 1))
    assert not model.training
    assert hooks(model) == 0


def test_momentum_goes_on_from_call_to_call() -> None:
    model = mlp()
    recorder = Recorder(model, momentum=0.9)
    for _ in range(2):
        train(model, vectors(), ONE, ALL, optimiser=recorder)
    first, second = recorder.seen
    for parameter, a, b in zip(model.parameters(), first, second, strict=True):
        torch.testing.assert_close(recorder.state[parameter]["momentum_buffer"], 0.9 * a + b)


class Layered(nn.Module):
    """A linear classifier after something of the test's own."""

    def __init__(self, front: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.front = front
        self.classifier = nn.Linear(3, 3)
        self.memory: Tensor = torch.zeros(3)
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.front(self, x))


def counts(model: nn.Module, x: Tensor) -> Tensor:
    if model.training:
        model.get_buffer("seen").add_(x.detach().sum(dim=0))
    return x


def remembers(model: Any, x: Tensor) -> Tensor:
    model.memory = model.memory + x.detach().mean(dim=0)
    return x + model.memory


class Scaled(nn.Module):
    """A trainable layer with a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.register_buffer("one", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight * self.get_buffer("one")


class Noisy(nn.Module):
    """A trainable layer that is random inside, so that Opacus cannot repeat it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.dropout = nn.Parameter(torch.ones(3)), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x * self.weight)


class Reshaped(nn.Module):
    """A layer that sees three rows for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.classifier = nn.Linear(1, 2), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.inner(x.reshape(-1, 1)).reshape(len(x), -1))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.classifier = (
            nn.MultiheadAttention(3, 1, batch_first=True),
            nn.Linear(3, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.attention(x[:, None], x[:, None], x[:, None])[0][:, 0])


class Branch(nn.Module):
    """Chooses between two layers by something of the whole batch."""

    def __init__(self, choose: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.choose, self.a, self.b = choose, nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) if self.choose(x) else self.b(x)


class Steered(nn.Module):
    """The same logits whatever the batch is, and gradients that depend on its largest value."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        said = self.layer(x)
        return said.detach() + (said - said.detach()) * (1 + (x.detach().amax() > 50))


class Once(nn.Module):
    """Keeps the mean of the first batch that it ever saw, where no state dict has it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.mean = nn.Linear(3, 3), None

    def forward(self, x: Tensor) -> Tensor:
        if self.mean is None:
            self.mean = x.detach().mean()
        return self.layer(x - self.mean)


class Sequence(nn.Module):
    """Inputs as a sequence of numbers, each embedded, through `inner`."""

    def __init__(self, inner: nn.Module | None = None, **options: Any) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 2, **options)
        self.inner, self.classifier = inner, nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        said = self.words(x.long())
        if isinstance(self.inner, DPMultiheadAttention):
            said = self.inner(said, said, said)[0]
        elif self.inner is not None:
            said = self.inner(said)[0]
        return self.classifier(said.mean(dim=1))


class Detached(nn.Module):
    """Has a use that the loss does not depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.layer(x).detach()


def frozen(layer: nn.Module) -> nn.Module:
    return layer.requires_grad_(requires_grad=False).eval()


def after(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), layer, nn.Linear(3, 3))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: after(nn.BatchNorm1d(3)), "layer '1', BatchNorm1d, .* torch.nn.GroupNorm"),
        (lambda: after(nn.BatchNorm1d(3, affine=False)), "layer '1', BatchNorm1d"),
        (lambda: after(nn.BatchNorm1d(3, track_running_stats=False)), "BatchNorm1d"),
        (lambda: after(frozen(nn.BatchNorm1d(3))), "layer '1', BatchNorm1d"),
        (lambda: after(nn.SyncBatchNorm(3)), "layer '1', SyncBatchNorm"),
        (lambda: after(nn.LazyBatchNorm1d()), "layer '1', LazyBatchNorm1d"),
        (lambda: after(nn.InstanceNorm1d(3, track_running_stats=True)), "InstanceNorm1d"),
        (lambda: after(nn.LazyInstanceNorm1d(track_running_stats=True)), "LazyInstanceNorm1d"),
        (lambda: Layered(counts), "'seen', which the model's forward pass changes"),
        (lambda: Layered(remembers), "differ from call to call"),
        (lambda: Layered(lambda _, x: F.dropout(x, 0.5)), "differ from call to call"),
        (lambda: Layered(lambda _, x: x - x.mean(dim=0)), "depend on the other samples"),
        (lambda: Layered(lambda _, x: x - x.detach().mean(dim=0)), "depend on the other samples"),
        (lambda: Layered(lambda _, x: x / len(x)), "depend on the other samples"),
        (lambda: after(Scaled()), "layer '1', Scaled: there are no gradients"),
        (lambda: after(Noisy()), "DP-SGD cannot train the model: .*random"),
        (Reshaped, r"layer 'inner', Linear, which sees 12 rows for 4 samples"),
        (Attention, "layer 'attention', MultiheadAttention: .*opacus.layers.DPMultiheadAttention"),
        (lambda: Sequence(nn.LSTM(2, 2)), "logits depend on the other samples"),
        (
            lambda: Sequence(nn.LSTM(2, 3, proj_size=2)),
            "layer 'inner', LSTM: .* opacus.layers.DPLSTM",
        ),
        (
            lambda: Sequence(nn.GRU(2, 2, 2, dropout=0.5)),
            "layer 'inner', GRU: .* opacus.layers.DPGRU",
        ),
        (lambda: Sequence(nn.RNN(2, 2)), "layer 'inner', RNN: .* opacus.layers.DPRNN"),
        (
            lambda: after(Layered(lambda _, x: x.add_(1))),
            "writes into what a layer .*gave; write nothing in place",
        ),
        (lambda: after(nn.GRUCell(3, 3)), "layer '1', GRUCell: .* on the whole sequence"),
        (lambda: after(nn.EmbeddingBag(3, 3)), "layer '1', EmbeddingBag: .* torch.nn.Embedding"),
        (lambda: Branch(lambda x: x.mean() > 0), "logits depend on the other samples"),
        (lambda: Branch(lambda x: x.mean() > 0.5), "seen beside samples very large"),
        (lambda: Branch(lambda x: x.amax() > 50), "seen beside samples very large"),
        (lambda: Branch(lambda x: x.amin() < -5), "very large and negative"),
        (lambda: Branch(lambda x: len(x) > 9), "seen beside samples of zeros"),
        (lambda: Branch(lambda x: len(x) > 30), "seen in a batch of 32"),
        (lambda: Branch(lambda x: len(x) > 200), "seen in a batch of 256"),
        (lambda: Branch(lambda x: (x[0] > x[-1]).all()), "logits depend on the other samples"),
        (
            lambda: Layered(lambda model, x: model.classifier(input=x)),
            "layer 'classifier', Linear, which is called by keyword, .* by position",
        ),
        (Steered, "gradients depend on the other samples"),
        (Once, "differ from call to call"),
        (lambda: nn.Sequential(nn.Linear(4, 3)), "DP-SGD cannot train the model: mat1 and mat2"),
        (nn.Flatten, "needs a model with a parameter that requires gradients"),
        (lambda: frozen(nn.Linear(3, 3)), "needs a model with a parameter"),
    ],
)
def test_a_model_that_breaks_the_guarantee_is_refused(
    build: Callable[[], nn.Module], message: str
) -> None:
    model = build()
    before, hooked = traces(model), hooks(model)
    with pytest.raises(ConfigError, match=message):
        check_model(model, (3,))
    with pytest.raises(ConfigError, match=message):
        train(model, vectors(), ONE, ALL)
    assert traces(model) == before
    assert hooks(model) == hooked  # a lazy layer brings one


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    "build", [mlp, dropout, tied, Side, Detached, lambda: after(nn.GroupNorm(1, 3))]
)
def test_a_model_that_keeps_the_guarantee_is_left_as_it_is(build: Callable[[], nn.Module]) -> None:
    model, state = build(), torch.get_rng_state()
    before, values = traces(model), weights(model).clone()
    check_model(model, (3,))
    assert torch.equal(torch.get_rng_state(), state) or build is not mlp
    assert traces(model) == before
    assert torch.equal(weights(model), values)
    assert model.training


def numbers(rows: int = 6) -> Samples:
    """Rows of three whole numbers below 7."""
    draws = generator(5)
    x = torch.randint(7, (rows, 3), generator=draws).float()
    return Samples(x, torch.randint(CLASSES, (rows,), generator=draws))


def tied_words() -> nn.Module:
    model = Sequence()
    model.classifier = nn.Linear(2, 7)
    model.classifier.weight = model.words.weight
    return model


@pytest.mark.parametrize(
    "build",
    [
        Sequence,
        partial(Sequence, padding_idx=0),
        tied_words,
        lambda: Sequence(nn.LSTM(2, 2, batch_first=True)),
        lambda: Sequence(nn.GRU(2, 2, batch_first=True)),
        lambda: Sequence(DPLSTM(2, 2, batch_first=True)),
        lambda: Sequence(DPGRU(2, 2, batch_first=True)),
        lambda: Sequence(DPRNN(2, 2, batch_first=True)),
        lambda: Sequence(DPMultiheadAttention(2, 1, batch_first=True)),
    ],
)
def test_a_model_of_whole_numbers_is_protected_by_the_gradients_of_each_record(
    build: Callable[[], nn.Module],
) -> None:
    samples, model = numbers(), build()
    check_model(model, (3,))
    check_model(model, (3,), like=samples.x)
    before, hooked = traces(model), hooks(model)
    gradients = slow_gradients(copy.deepcopy(model), samples, cross_entropy)
    expected = sum(gradient / max(1, float(gradient.norm())) for gradient in gradients)
    torch.testing.assert_close(summed(model, samples, cross_entropy), expected)
    assert traces(model) == before
    assert hooks(model) == hooked


def test_inputs_like_the_data_that_a_model_does_not_take_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"index out of range.* no inputs .* like the public"):
        check_model(Sequence(), (3,), like=torch.full((5, 3), 9.0))
    narrow = Sequence()
    narrow.words = nn.Embedding(1, 2)
    with pytest.raises(ConfigError, match=r"index out of range.* no inputs \(3,\) from N") as said:
        check_model(narrow, (3,))
    assert "such as Linear" not in str(said.value)


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 3)),
        lambda: after(nn.ReLU(inplace=True)),
        lambda: nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5, inplace=True), nn.Linear(3, 3)),
    ],
)
def test_layers_that_write_in_place_learn_as_those_that_do_not(
    build: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sgd, "NoiseSource", seeded)
    model, samples = build(), vectors()
    twin, before = copy.deepcopy(model), samples.x.clone()
    for layer in twin:
        layer.inplace = False
    ours, theirs = (summed(each, samples, cross_entropy) for each in (model, twin))
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(samples.x, before)
    assert any(getattr(layer, "inplace", False) for layer in model)


def test_tied_weights_are_clipped_as_one() -> None:
    model = tied()
    gradients = slow_gradients(copy.deepcopy(model), vectors(), cross_entropy)
    expected = sum(gradient / max(1, float(gradient.norm())) for gradient in gradients)
    torch.testing.assert_close(summed(model, vectors(), cross_entropy), expected)


@each_model
def test_the_built_in_models_keep_the_guarantee(name: str) -> None:
    check_model(built(name), SHAPE)


def test_sums_that_cancel_in_float32_are_no_samples_that_touch_each_other() -> None:
    layer = nn.Linear(4000, 2, bias=False)
    x = probes.inputs(layer, (4000,), None)
    with torch.no_grad():  # of the first sample, hundreds of terms leave next to nothing
        along = (layer.weight.double() @ x[0].double()) / x[0].double().square().sum()
        layer.weight -= (along[:, None] * x[0].double()).float()
        alone, together = layer(x[:1]), layer(x)[:1]
    assert float((alone - together).abs().max()) > 1e-4 * float(alone.abs().max())
    check_model(layer, (4000,))
