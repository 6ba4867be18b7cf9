"""Other ways to clip: short gradients made longer, and each layer's part alone."""

import json
import math
from collections.abc import Callable

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedkd import models
from fedkd.auditing import structure
from fedkd.config import ModelSpec, Optimisation
from fedkd.data.types import Samples
from fedkd.errors import ConfigError
from fedkd.federation.prepare import prepare
from fedkd.jobs.audit.teachers import audit_teacher
from fedkd.learning.dp import sgd
from fedkd.learning.dp.per_sample import PerSample
from fedkd.learning.dp.sgd import Noise
from fedkd.privacy.events import Gaussian
from fedkd.privacy.mechanisms import STABILITY, clip, clipped_sum

N, SHAPE = 6, (1, 12, 12)
MODELS = ({"name": "mlp", "hidden": [7]}, {"name": "dense-cnn", "norm": "group"})
PRIVATE = {"privacy.epsilon": 8.0, "privacy.sample_rate": 0.5}


def automatic(parts: list[Tensor], norm: float) -> list[Tensor]:
    length = math.sqrt(sum(float(part.square().sum()) for part in parts))
    return [part * norm / (length + STABILITY) for part in parts]


def by_layers(parts: list[Tensor], norm: float) -> list[Tensor]:
    """Of layers of a weight and a bias each."""
    clipped = list[Tensor]()
    for weight, bias in zip(parts[::2], parts[1::2], strict=True):
        length = math.hypot(float(weight.norm()), float(bias.norm()))
        share = min(1, norm / math.sqrt(len(parts) / 2) / length) if length else 1
        clipped += [weight * share, bias * share]
    return clipped


BY_HAND: dict[sgd.Clipping, Callable[[list[Tensor], float], list[Tensor]]] = {
    "automatic": automatic,
    "layers": by_layers,
}
each_way = pytest.mark.parametrize("clipping", BY_HAND)


def built(spec: dict[str, object]) -> nn.Module:
    draws = torch.Generator().manual_seed(0)
    chosen = ModelSpec.model_validate(spec)
    return models.build(chosen, shape=SHAPE, classes=3, generator=draws).double()


def loss(said: Tensor, y: Tensor) -> Tensor:
    """Of which some records have next to no gradient, and one a huge one."""
    return said.square().sum(dim=1) * torch.tensor([1e-6, 1e-3, 1.0, 1e6, 0.0, 1e-1])[y]


@each_way
@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec["name"])
@pytest.mark.parametrize("norm", [0.01, 1.0])
def test_a_clipped_sum_is_that_of_a_loop_over_records(clipping, spec, norm) -> None:
    model = built(spec)
    x = torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    parameters = list(model.parameters())
    wanted = [torch.zeros_like(each) for each in parameters]
    for row in range(N):
        value = loss(model(x[row : row + 1]), torch.tensor([row])).sum()
        parts = BY_HAND[clipping](list(torch.autograd.grad(value, parameters)), norm)
        assert math.sqrt(sum(float(part.square().sum()) for part in parts)) <= norm * (1 + 1e-9)
        wanted = [total + part for total, part in zip(wanted, parts, strict=True)]
    with PerSample(model) as per_sample:
        noise = Noise(1.0, norm, 1.0, 1, clipping)
        found = sgd._clipped_sums(per_sample, loss, Samples(x, torch.arange(N)), noise)
    largest = max(float(each.abs().max()) for each in wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6 * largest)


@settings(deadline=None, max_examples=40)
@given(
    scales=st.lists(st.sampled_from([0.0, 1e-30, 1e-9, 0.01, 1.0, 1e20, 1e37]), min_size=1),
    norm=st.sampled_from([1e-6, 1.0, 1e6]),
    seed=st.integers(0, 99),
)
def test_no_record_counts_for_more_than_the_norm(scales, norm, seed) -> None:
    draws = torch.Generator().manual_seed(seed)
    rows = torch.randn(len(scales), 9, generator=draws) * torch.tensor(scales)[:, None]
    whole, parts = clipped_sum([rows], norm, automatic=True)[0], clip(rows, norm, automatic=True)
    assert (parts.double().norm(dim=1) <= norm * (1 + 1e-6)).all()
    torch.testing.assert_close(whole, parts.sum(dim=0), rtol=1e-5, atol=1e-6 * norm)


@each_way
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_poisoned_record_counts_as_nothing(clipping, bad) -> None:
    model = nn.Linear(4, 3)
    x = torch.rand(5, 4, generator=torch.Generator().manual_seed(2))
    noise = Noise(1.0, 1.0, 1.0, 1, clipping)

    def sums(x: Tensor) -> list[Tensor]:
        with PerSample(model) as per_sample:
            y = torch.zeros(len(x))
            return sgd._clipped_sums(per_sample, lambda s, _: s.sum(1), Samples(x, y), noise)

    rest, poisoned = sums(x), sums(torch.cat([x, torch.full((1, 4), bad)]))
    torch.testing.assert_close(poisoned[0], rest[0])
    whole = clipped_sum([torch.cat([x, torch.full((1, 4), bad)])], 1.0, automatic=True)
    torch.testing.assert_close(whole, clipped_sum([x], 1.0, automatic=True))


@each_way
def test_what_looks_at_the_training_finds_it_right(clipping, monkeypatch) -> None:
    monkeypatch.setattr(structure, "_STEPS", 20)
    noise = Noise(1.0, 1.0, 0.5, 8, clipping)
    how = Optimisation(epochs=2, learning_rate=0.1)
    checks = structure.check_training(noise, how, Gaussian("x", 1.0, 0.5, 4))
    assert {check.outcome for check in checks} == {"CONSISTENT"}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({**PRIVATE, "privacy.clipping": "none"}, "privacy.clipping"),
        ({"privacy.clipping": "automatic"}, "it would protect nothing"),
        (
            {**PRIVATE, "privacy.clipping": "layers", "method.name": "analytic", "rounds": 1},
            "privacy.clipping is 'layers', and method 'analytic' trains nothing",
        ),
        (
            {
                "privacy.unit": "client-votes",
                "privacy.epsilon": 1e6,
                "privacy.clipping": "automatic",
                "method.name": "dsfl",
                "clients.count": 12,
            },
            "under privacy.unit = 'client-votes' no gradient is clipped",
        ),
    ],
)
def test_where_it_would_do_nothing_it_is_refused(rows, changes, complaint) -> None:
    with pytest.raises(ConfigError, match=complaint):
        prepare(tiny.experiment(rows, changes))


def test_canaries_are_no_match_for_layers(rows) -> None:
    experiment = tiny.experiment(rows, {**PRIVATE, "privacy.clipping": "layers"})
    with pytest.raises(ConfigError, match="moves but a part of the clip"):
        audit_teacher(experiment, lambda *_: None)


@each_way
def test_a_federation_clips_as_it_is_told(rows, clipping) -> None:
    prepared = prepare(tiny.experiment(rows, {**PRIVATE, "privacy.clipping": clipping}))
    assert prepared.setting.noise.clipping == clipping


def test_who_says_nothing_has_the_json_of_before(rows) -> None:
    for told in ({}, {"privacy.clipping": "flat"}):
        said = json.loads(tiny.experiment(rows, {**PRIVATE, **told}).to_json())
        assert "clipping" not in said["privacy"]
