"""Teachers brought near to another domain: statistics and covariances, alone and in a run."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor, nn

from fedkd import config, data
from fedkd.config import Alignment, Experiment
from fedkd.errors import ConfigError, DataError
from fedkd.federation.prepare import prepare
from fedkd.jobs.simulate import simulate
from fedkd.learning import alignment


def drawn(*shape: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + shift


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))


def test_coral_is_numpy_s_distance_of_covariances() -> None:
    one, other = drawn(20, 5, seed=1), drawn(30, 5, seed=2, scale=2.0)
    apart = np.cov(one.numpy(), rowvar=False) - np.cov(other.numpy(), rowvar=False)
    expected = (apart**2).sum() / (4 * 25)
    assert alignment.coral(one, other).item() == pytest.approx(expected, rel=1e-5)
    assert alignment.coral(one, one + 7.0).item() == pytest.approx(0.0, abs=1e-9)


def test_restated_norms_have_the_moments_of_the_other_inputs_and_weights_stay() -> None:
    model, x = network(), drawn(64, 4, seed=3, scale=3.0, shift=5.0)
    model(drawn(64, 4, seed=4))
    model.eval()
    before = copy.deepcopy(model.state_dict())
    alignment.restate(model, x)
    entered = model[0](x).detach().numpy()
    norm = model[1]
    np.testing.assert_allclose(norm.running_mean, entered.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(norm.running_var, entered.var(axis=0, ddof=1), rtol=1e-4)
    assert not any(module.training for module in model.modules())
    assert norm.momentum == 0.1
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name]), name


def domains(folder: Path) -> tuple[Path, Path]:
    """Images, and the same kind of images in other brightness and contrast."""
    source = tiny.write_images(folder / "source.npz", side=8, samples=120)
    with np.load(tiny.write_images(folder / "raw.npz", side=8, samples=90, seed=5)) as raw:
        parts = dict(raw)
    for part in ("x_train", "x_test"):
        parts[part] = (0.75 + 0.2 * parts[part]).astype(np.float32)
    np.savez(folder / "target.npz", **parts)
    return source, folder / "target.npz"


def experiment(folder: Path, **changes: Any) -> Experiment:
    source, target = domains(folder)
    model = {"name": "dense-cnn"}
    table = copy.deepcopy(tiny.BASE) | {"rounds": 1, "student": {"model": model}}
    table["data"] |= {"name": str(source)}
    table["data"]["public"] = {"source": str(target), "size": 60, "test": True}
    table["clients"] |= {"count": 1, "models": [model], **changes.pop("clients", {})}
    size = changes.pop("batch_size", 16)
    table["clients"]["training"] = {"epochs": 4, "batch_size": size, "learning_rate": 0.05}
    table["method"] = {"name": "fedmd", "student": {"epochs": 2, "batch_size": 16}}
    return config.parse(table | changes)


def test_teachers_with_the_target_s_statistics_know_it_better(tmp_path: Path) -> None:
    plain = simulate(experiment(tmp_path), tmp_path / "plain")
    align = {"align": "batch-norm"}
    aligned = simulate(experiment(tmp_path, clients=align), tmp_path / "aligned")
    assert aligned["teachers"]["mean_accuracy"] > plain["teachers"]["mean_accuracy"] + 0.2


def test_coral_draws_features_together() -> None:
    x, others = drawn(32, 4, seed=6), drawn(32, 4, seed=7, scale=4.0)
    apart = []
    for weight in (1e-6, 1e3):
        model = network()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(drawn(*parameter.shape, seed=8))
        choice = Alignment(name="coral", weight=weight)
        draws = torch.Generator().manual_seed(9)
        term = alignment.beside(choice, others, 32, draws)
        optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
        for _ in range(30):
            optimiser.zero_grad()
            term(model, x).backward()
            optimiser.step()
        apart.append(term(model, x).item() / weight)
    assert apart[1] < 0.5 * apart[0]


class Headless(nn.Module):
    """Answers without a layer that features enter."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(shape[0], classes, 3)

    def forward(self, x: Tensor) -> Tensor:
        said: Tensor = self.conv(x).mean(dim=(2, 3))
        return said


def test_coral_of_one_record_alone_is_nothing() -> None:
    generator = torch.Generator().manual_seed(1)
    term = alignment.beside(Alignment(name="coral"), drawn(8, 4, seed=2), 4, generator)
    assert term is not None
    assert term(network().eval(), drawn(1, 4, seed=3)).item() == 0.0


@pytest.mark.parametrize("name", ["batch-norm", "coral"])
def test_a_proxy_set_of_one_record_has_no_variance(name: str) -> None:
    choice = Alignment.model_validate({"name": name})
    with pytest.raises(ConfigError, match=r"variance of the proxy set, and data.public.size is 1"):
        alignment.check(choice, network(), (4,), 8, 1, key="align", spec="mine")


def test_models_are_tested_on_the_proxy_set_s_own_domain(tmp_path: Path) -> None:
    asked = experiment(tmp_path)
    tested = prepare(asked).data.test
    target = data.load(config.Data(name=asked.data.public.source), seed=0)
    assert torch.equal(tested.x, target.test.x)
    assert "align" not in asked.to_json()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {
                "clients": {
                    "align": "batch-norm",
                    "models": [{"name": "dense-cnn", "norm": "group"}],
                }
            },
            "has no BatchNorm whose statistics could be those of the proxy set",
        ),
        (
            {"clients": {"align": "coral"}, "method": {"name": "fedavg"}},
            "choose one of fedmd, dsfl",
        ),
        (
            {"clients": {"align": "coral", "models": [{"name": f"{__name__}:Headless"}]}},
            "model 'Headless' has no linear layer",
        ),
        (
            {"clients": {"align": "coral"}, "batch_size": 1},
            "'coral', which compares covariances of batches, and clients.training.batch_size is 1",
        ),
        (
            {"clients": {"align": "coral"}, "privacy": {"epsilon": 8.0}},
            "'coral' compares the records of a batch with each other",
        ),
    ],
)
def test_what_cannot_be_aligned_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(experiment(tmp_path, **changes))


def test_a_target_of_other_classes_or_none_is_refused(tmp_path: Path) -> None:
    asked = experiment(tmp_path)
    with np.load(asked.data.public.source) as stored:
        parts = dict(stored)
    np.savez(asked.data.public.source, **{**parts, "y_train": parts["y_train"] % 2,
                                          "y_test": parts["y_test"] % 2})  # fmt: skip
    with pytest.raises(DataError, match=r"data.public.test: .* has the classes 0, 1; expected"):
        prepare(asked)
    with pytest.raises(ConfigError, match=r"data.public.source is 'held-out'"):
        config.parse({**copy.deepcopy(tiny.BASE), "data": {"public": {"size": 4, "test": True}}})
