"""FedLwF: what an earlier stage taught stays, exemplars stay at home, and both are paid for."""

from pathlib import Path
from typing import Any

import pytest
import torch
from federations import federation, generator

from fedkd import config
from fedkd.config import Stream
from fedkd.errors import ConfigError
from fedkd.federation.prepare import prepare
from fedkd.jobs.simulate import simulate
from fedkd.learning.herding import herd
from fedkd.methods.core import accounting

STREAM = {"by": "classes", "stages": [[0, 1], [2]], "scenario": "class-incremental"}


def table(rows: Path, method: dict[str, Any], **changes: Any) -> config.Experiment:
    mlp = {"name": "mlp", "hidden": [12]}
    told: dict[str, Any] = {
        "name": "tiny",
        "rounds": 4,
        "data": {
            "name": str(rows),
            "stream": STREAM | {"rounds": 2},
            "partition": {"scheme": "iid"},
        },
        "clients": {
            "count": 2,
            "models": [mlp],
            "training": {"epochs": 2, "batch_size": 16, "learning_rate": 0.1},
        },
        "student": {"model": mlp},
        "method": method,
        **changes,
    }
    return config.parse(told)


def run(rows: Path, folder: Path, method: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return simulate(table(rows, method, **changes), folder)


def test_what_an_earlier_stage_taught_stays(rows: Path, tmp_path: Path) -> None:
    average = run(rows, tmp_path / "avg", {"name": "fedavg"})["continual"]
    kept = run(rows, tmp_path / "lwf", {"name": "fedlwf"})["continual"]
    again = run(rows, tmp_path / "ex", {"name": "fedlwf", "exemplars": 20})["continual"]
    assert average["forgetting"] > kept["forgetting"]
    assert again["average"] > kept["average"]
    assert again["scenario"] == "class-incremental"
    assert again["stages"] == ["0, 1", "2"]


def test_a_run_that_goes_on_in_a_later_stage_is_the_same_bit_for_bit(
    rows: Path, tmp_path: Path
) -> None:
    method = {"name": "fedlwf", "exemplars": 20}
    straight = tmp_path / "straight"
    run(rows, straight, method)
    part = tmp_path / "part"
    run(rows, part, method, rounds=3)
    simulate(table(rows, method), part, resume=True)
    one, other = (folder / "student.safetensors" for folder in (straight, part))
    assert one.read_bytes() == other.read_bytes()


def test_before_is_the_model_as_the_last_stage_left_it() -> None:
    fed = federation("fedlwf", stream=Stream(by="classes", stages=3, rounds=2), rounds=6)
    left = {}
    broadcast = fed.begin()
    for number in range(1, 7):
        before = {k: v for k, v in broadcast.common.items() if k.startswith("before/")}
        stage = (number - 1) // 2
        assert bool(before) == (stage > 0)
        if stage:
            name, value = next(iter(before.items()))
            torch.testing.assert_close(value, left[stage - 1][name.removeprefix("before/")])
        broadcast, _ = fed.round(number, broadcast)
        left[stage] = {k: v.clone() for k, v in fed.student.state_dict().items()}


def test_exemplars_never_leave() -> None:
    fed = federation({"name": "fedlwf", "exemplars": 4}, stream=Stream(by="classes", stages=2))
    assert set(fed.method.expects(fed.setting, 0)) == {
        *fed.setting.model_and_count(0),
    }


def test_each_stage_pays_for_counts_of_its_own(rows: Path) -> None:
    privacy = {"epsilon": 8.0, "noise_multiplier": 3.0}
    experiment = table(rows, {"name": "fedlwf"}, privacy=privacy)
    ready = prepare(experiment)
    planned = accounting.plan(ready.method, ready.setting)
    assert sum(each == ready.setting.training for each in planned) == 4
    assert sum(each == ready.setting.counting("example count") for each in planned) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": {"name": "fedlwf"}, "data": {}}, "the data comes in none: add a section"),
        (
            {"method": {"name": "fedlwf", "exemplars": 5}, "privacy": {"epsilon": 8.0}},
            "method.exemplars is 5: they are chosen by comparing records with each other",
        ),
        (
            {"method": {"name": "fedlwf", "exemplars": 1}},
            "method.exemplars is 1: expected at least 2, one of each earlier class, or 0",
        ),
        (
            {
                "method": {"name": "fedlwf"},
                "privacy": {"epsilon": 8.0},
                "clients": {"training": {"augment": ["noise"]}},
            },
            "under privacy.unit = 'record' the model before the stage answers to them as they are",
        ),
    ],
)
def test_what_it_cannot_run_is_refused_in_a_line(
    rows: Path, changes: dict[str, Any], words: str
) -> None:
    base = table(rows, changes["method"]).model_dump(exclude_none=True)
    base["clients"]["training"] |= changes.get("clients", {}).get("training", {})
    if "data" in changes:
        del base["data"]["stream"]
    with pytest.raises(ConfigError, match=words):
        prepare(config.parse({**base, **{k: v for k, v in changes.items() if k == "privacy"}}))


def test_exemplars_are_enough_for_each_class_of_each_stage(rows: Path) -> None:
    base = table(rows, {"name": "fedlwf", "exemplars": 2}).model_dump(exclude_none=True)
    base["data"]["stream"] = {"by": "time", "stages": 2, "rounds": 2}
    with pytest.raises(ConfigError, match=r"is 2: expected at least 3, one of each earlier stage"):
        prepare(config.parse(base))


def test_time_moves_records_that_are_protected(rows: Path) -> None:
    data = {"name": str(rows), "stream": {"by": "time", "stages": 2}}
    told = table(rows, {"name": "fedlwf"}, data=data, privacy={"epsilon": 8.0})
    with pytest.raises(ConfigError, match="a record more would move others to another stage"):
        prepare(told)


def test_herding_follows_the_mean() -> None:
    features = torch.randn(30, 5, generator=generator(0))
    chosen, total = [], torch.zeros(5)
    for number in range(1, 9):  # by hand
        left = [row for row in range(30) if row not in chosen]
        gap = {
            row: float((features.mean(0) - (total + features[row]) / number).norm()) for row in left
        }
        chosen.append(min(gap, key=gap.__getitem__))
        total = total + features[chosen[-1]]
    assert herd(features, 8).tolist() == chosen
    assert herd(features, 3).tolist() == chosen[:3]
    assert sorted(herd(features, 99).tolist()) == list(range(30))
