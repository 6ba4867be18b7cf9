"""What a configuration names, and where models and optimisers go; on a machine without any."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import nn

from fedkd import config, devices
from fedkd.config import Distillation, Optimisation
from fedkd.data.types import Samples
from fedkd.errors import ConfigError
from fedkd.federation.prepare import prepare
from fedkd.jobs.simulate import simulate
from fedkd.learning import optim
from fedkd.learning.dp import sgd
from fedkd.rows import device_of, moved
from fedkd.runs.common import warn_of_device

META = torch.device("meta")
"""Every torch has it; it keeps shapes and no values."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_rows(tmp_path_factory.mktemp("data") / "rows.npz", samples=90)


def test_the_cpu_is_there() -> None:
    assert devices.resolve("cpu", key="device") == (devices.CPU,)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("gpu", "engine.device is 'gpu': expected auto, cpu, cuda"),
        ("", "expected auto, cpu, cuda"),
        ("meta", "expected auto, cpu, cuda"),
        ("cuda:99", "devices of this kind here: write 'cpu', or 'auto'"),
        ("cpu,cpu", "expected devices of one kind, each once"),
    ],
)
def test_what_is_no_device_here_is_refused_in_one_line(named: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        devices.resolve(named, key="engine.device")
    assert "\n" not in str(refused.value)


def test_an_accelerator_that_is_not_here_stops_a_run_before_it_is_written(
    rows: Path, tmp_path: Path
) -> None:
    told = tiny.experiment(rows, {"engine.device": "cuda:99"})
    with pytest.raises(ConfigError, match=r"engine\.device is 'cuda:99', and torch .* finds"):
        simulate(told, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_differential_privacy_needs_float64() -> None:
    devices.check_exact([torch.device("cuda", 0)], "float32", key="engine.device")
    with pytest.raises(ConfigError, match="has no float64"):
        devices.check_exact([torch.device("mps", 0)], "float32", key="engine.device")


def test_differential_privacy_switches_off_what_drops_digits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By default torch has convolutions on CUDA drop thirteen bits, behind the back of a clip."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        rows = Samples(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))
        noise = sgd.Noise(1.0, 1.0, 1.0, 2)
        sgd.train(nn.Linear(3, 2), rows, Optimisation(epochs=1), noise)
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_default_is_left_out_of_what_parties_agree_on(rows: Path) -> None:
    plain, named = (tiny.experiment(rows, {"engine.device": name}) for name in ("cpu", "auto"))
    assert "device" not in json.loads(plain.to_json())["engine"]
    assert json.loads(named.to_json())["engine"]["device"] == "auto"
    told: dict[str, Any] = {"name": "tiny", "data": {"name": str(rows)}}
    assert "engine" not in config.validate(Distillation, told).model_dump(mode="json")
    told["engine"] = {"device": "auto"}
    assert config.validate(Distillation, told).model_dump(mode="json")["engine"]


def test_clients_take_turns_and_a_site_is_one_client(rows: Path) -> None:
    setting = prepare(tiny.experiment(rows)).setting
    two = tuple(torch.device("cuda", number) for number in range(2))
    object.__setattr__(setting, "devices", two)
    assert [setting.device(client) for client in range(3)] == [two[0], two[1], two[0]]
    assert setting.device() == two[0]
    with pytest.raises(ConfigError, match=r"^device is 'cuda:99'"):
        prepare(tiny.experiment(rows), device="cuda:99")


def test_a_model_that_is_there_does_not_move() -> None:
    model = nn.Linear(2, 2)
    before = [parameter.data_ptr() for parameter in model.parameters()]
    with devices.visiting(devices.CPU, model):
        assert [parameter.data_ptr() for parameter in model.parameters()] == before
    assert devices.of(nn.ReLU()) == devices.CPU


def test_batches_of_columns_are_moved_and_rows_are_on_the_cpu() -> None:
    columns = {"a": torch.ones(2), "b": torch.ones(2, 3)}
    assert all(each.device == META for each in moved(columns, META).values())
    assert device_of(torch.ones(2, device=META)) == META
    x = torch.ones(2)
    assert moved(x, devices.CPU) is x


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_an_optimisers_state_is_packed_on_the_cpu_and_unpacked_beside_its_parameters(
    optimiser: str,
) -> None:
    how = Optimisation.model_validate({"optimiser": optimiser})
    model = nn.Linear(2, 2)
    first = optim.build(model.parameters(), how)
    model(torch.ones(1, 2)).sum().backward()
    first.step()
    packed = optim.pack(first)
    assert {each.device for each in packed.values()} == {devices.CPU}
    there = nn.Linear(2, 2, device=META)
    second = optim.build(there.parameters(), how)
    optim.unpack(second, packed)
    for state in second.state.values():
        for name, value in state.items():
            assert value.device == (devices.CPU if name == "step" else META)


def test_a_run_records_its_device_and_says_when_it_goes_on_on_another(
    rows: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = tiny.experiment(rows, {"rounds": 1})
    simulate(told, tmp_path / "run", tiny.Quiet())
    file = tmp_path / "run" / "environment.json"
    environment = json.loads(file.read_text())
    assert environment["device"] == "cpu"
    more = tiny.experiment(rows, {"rounds": 2})
    simulate(more, tmp_path / "run", tiny.Quiet(), resume=True)
    assert "bit for bit" not in caplog.text
    warn_of_device(tmp_path / "run", (torch.device("cuda", 0), torch.device("cuda", 1)))
    assert "was begun on cpu and goes on on cuda:0, cuda:1" in caplog.text
    assert "<dd>cpu</dd>" in (tmp_path / "run" / "report.html").read_text().replace("\n", "")
