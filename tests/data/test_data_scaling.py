"""Columns on one scale, by limits or by the proxy set, for all parties alike."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from fedkd import config, data
from fedkd.data import shared_file
from fedkd.data.types import FederatedData
from fedkd.errors import ConfigError, UsageError
from fedkd.federation.prepare import prepare
from fedkd.jobs import local, submit


@pytest.fixture
def ages(tmp_path: Path) -> Path:
    """Ages in years, an income that is often missing, and a class."""
    draw = np.random.default_rng(1)
    lines = [
        f"{draw.integers(20, 90)},{'?' if i % 3 else draw.integers(10_000, 90_000)},{i % 2}\n"
        for i in range(200)
    ]
    (tmp_path / "ages.csv").write_text("age,income,label\n" + "".join(lines))
    return tmp_path / "ages.csv"


def section(path: Path, **changes: Any) -> config.Data:
    table = {"name": str(path), "partition": {"scheme": "iid"}, "missing": "indicate", **changes}
    return config.validate(config.Data, table)


def split(path: Path, **changes: Any) -> FederatedData:
    return data.federate(section(path, **changes), clients=2, seed=0)


LIMITS: Mapping[str, Any] = {"age": [20, 90], "income": [0, 100_000]}


def test_unscaled_columns_are_named_with_the_remedy(ages: Path, warned: list[str]) -> None:
    split(ages)
    assert "column 'income' has values of about 3e+04 (large too: 'age')" in warned.pop()
    split(ages, limits={"income": LIMITS["income"]})
    assert re.search(r"'age' has .*data\.limits\.age = .*data\.scale = 'publ", warned.pop())
    split(ages, limits=LIMITS)
    assert warned == []


def test_limits_become_minus_one_and_one_and_what_is_missing_stays_zero(ages: Path) -> None:
    before, after = split(ages), split(ages, limits=LIMITS)
    for unscaled, scaled in zip(before.clients, after.clients, strict=True):
        age, none, income, missing = unscaled.x.unbind(1)
        assert not none.any()
        assert torch.allclose(scaled.x[:, 0], (age - 55) / 35)
        assert torch.allclose(scaled.x[:, 2], torch.where(missing == 1, 0, income / 50_000 - 1))
        assert torch.equal(scaled.x[:, 3], missing)
    assert after.scale == {"age": (20, 90), "income": (0, 100_000)}
    # The student's test rows, as export and the audits of it read them.
    assert torch.equal(data.load(section(ages, limits=LIMITS), seed=0).test.x, after.test.x)


def test_a_column_of_ones_own_named_like_an_indicator_hides_no_value(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text("a,a?,label\n" + "".join(f"{i + 1},{i % 2},{i % 3 % 2}\n" for i in range(9)))
    told = data.load(section(file, missing="refuse", limits={"a": [0, 10]}, test_share=0.5), seed=0)
    rows = torch.cat([told.train.x, told.test.x])
    assert sorted(rows[:, 0].tolist()) == pytest.approx([i / 5 - 1 for i in range(1, 10)])


@pytest.mark.parametrize("source", ["held-out", "itself"])
def test_the_proxy_set_scales_and_no_private_row_does(ages: Path, source: str) -> None:
    public = {"source": source if source == "held-out" else str(ages), "size": 60}
    before, after = split(ages, public=public), split(ages, public=public, scale="public")
    assert before.public is not None
    assert after.public is not None
    assert after.public[:, 0].mean().item() == pytest.approx(0, abs=1e-5)
    assert after.public[:, 0].std(correction=0).item() == pytest.approx(1, abs=1e-5)
    known = before.public[before.public[:, 3] == 0][:, 2]
    low, high = after.scale["income"]
    assert (low + high) / 2 == pytest.approx(known.mean().item())
    assert (high - low) / 2 == pytest.approx(known.std(correction=0).item())
    # The limits say it all: they give the same rows, private ones too.
    again = split(ages, public=public, limits={c: list(pair) for c, pair in after.scale.items()})
    for one, other in zip(after.clients, again.clients, strict=True):
        assert torch.equal(one.x, other.x)
    assert torch.equal(
        data.load(section(ages, public=public, scale="public"), seed=0).test.x, after.test.x
    )


def test_a_site_s_rows_are_scaled_as_the_shared_file_is(
    ages: Path, tmp_path: Path, warned: list[str]
) -> None:
    told = data.shared(section(ages, limits=LIMITS), seed=0)
    back = shared_file.parse_shared(shared_file.to_bytes(told))
    assert back.scale == told.scale
    assert torch.equal(back.test.x, told.test.x)
    site = tmp_path / "site.csv"
    site.write_text("label;income;age\n1;25000,0;90\n0;;20\n")
    own = shared_file.read_own(site, "csv", label="label", shared=back, decimal=",")
    assert own.x.tolist() == [[1, 0, -0.5, 0], [-1, 0, 0, 1]]
    assert warned == []
    shared_file.read_own(site, "csv", label="label", shared=replace(back, scale={}), decimal=",")
    assert "site.csv: column 'income' has values of about 2e+04" in "".join(warned)


def test_a_trial_s_sites_scale_their_own_rows_to_the_simulation_s_bits(
    ages: Path, tmp_path: Path
) -> None:
    changes = {"data.limits": LIMITS, "data.missing": "indicate", "data.public.size": 20}
    experiment = tiny.experiment(ages, {**changes, "clients.count": 2})
    local.lay_out(experiment, tmp_path / "place")
    shared = shared_file.read_shared(tmp_path / "place" / "shared.safetensors")
    for number, expected in enumerate(prepare(experiment).data.clients):
        site = tmp_path / "place" / "sites" / f"client-000{number}" / "data.npz"
        own = shared_file.read_own(site, "npz", label="", shared=shared)
        assert torch.equal(own.x, expected.x)
    file = tmp_path / "place" / "shared.safetensors"
    assert submit.share(experiment, file) == file.read_bytes()
    for other in ({"age": [20, 80]}, {}):
        changed = tiny.experiment(ages, {**changes, "data.limits": other})
        with pytest.raises(UsageError, match=r"was made with other data\.limits"):
            submit.share(changed, file)


def test_columns_of_an_npz_are_numbers(tmp_path: Path) -> None:
    x, y = np.array([[1.0, 100.0], [2.0, 300.0]]), np.array([0, 1])
    np.savez(tmp_path / "rows.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    dataset = data.load(section(tmp_path / "rows.npz", limits={"1": [100, 300]}), seed=0)
    assert dataset.test.x.tolist() == [[1, -1], [2, 1]]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"limits": {"agee": [0, 1]}}, r"data\.limits names 'agee', .* did you mean 'age'"),
        ({"limits": {"age": [1, 1]}}, r"data\.limits\.age is \[1, 1\]: expected the lower"),
        ({"limits": {"age": [0, 1e-300]}}, r"data\.limits\.age is \[0, 1e-300\]: expected"),
        ({"limits": {"age": [0, 1e-40]}}, r"data\.limits\.age is \[0, 1e-40\], .*no finite"),
        ({"limits": {"age": [1]}}, r"key 'limits\.age\[1\]' is missing"),
        ({"scale": "public"}, r"data\.scale is 'public', and there is no \[data\.public\]"),
        ({"name": "fashion-mnist-sample", "limits": {"age": [0, 1]}}, "shape .1, 28, 28.: leave"),
    ],
)
def test_what_cannot_be_scaled_is_refused_in_one_line(
    ages: Path, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        split(ages, **changes) if "name" not in changes else data.load(
            section(Path(changes["name"]), limits=changes["limits"]), seed=0
        )
    assert "\n" not in str(caught.value)


def test_keys_that_say_nothing_do_not_change_what_an_experiment_is_called() -> None:
    plain = config.Data().model_dump(mode="json", exclude_none=True)
    assert not {"ignore", "decimal", "limits", "test", "scale"} & plain.keys()
    said = section(Path("a.csv"), ignore=["b"], decimal=",", limits={"c": [0, 1]}, test="d.csv")
    assert config.validate(config.Data, said.model_dump(mode="json", exclude_none=True)) == said
