import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedkd import data
from fedkd.config import Data
from fedkd.data import Dataset, sound
from fedkd.errors import DataError


def contents(**changes: Any) -> dict[str, Any]:
    """Six training and three test images of 5 x 4 grey pixels in three classes."""
    draw = np.random.default_rng(1)
    arrays = {
        "x_train": draw.integers(0, 256, (6, 5, 4), np.uint8),
        "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": draw.integers(0, 256, (3, 5, 4), np.uint8),
        "y_test": np.array([0, 1, 2]),
    }
    return {key: value for key, value in (arrays | changes).items() if value is not None}


def load(folder: Path, **changes: Any) -> Dataset:
    np.savez(folder / "mine.npz", **contents(**changes))
    return data.load(Data(name=str(folder / "mine.npz")), seed=0)


def test_grey_images_get_a_channel_and_are_scaled(tmp_path: Path) -> None:
    dataset = load(tmp_path)
    assert (dataset.name, dataset.shape, dataset.classes) == ("mine.npz", (1, 5, 4), 3)
    assert dataset.class_names == ("0", "1", "2")
    assert dataset.groups is None
    np.testing.assert_allclose(dataset.train.x[:, 0], contents()["x_train"] / 255, rtol=1e-6)
    assert dataset.train.y.tolist() == [0, 1, 2, 0, 1, 2]
    assert dataset.train.y.dtype == torch.int64


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_channel_axis_is_found_on_either_side(channels: int, tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    train, test = draw.random((6, channels, 5, 7)), draw.random((3, channels, 5, 7))
    first = load(tmp_path, x_train=train, x_test=test)
    last = load(tmp_path, x_train=train.transpose(0, 2, 3, 1), x_test=test.transpose(0, 2, 3, 1))
    assert first.shape == (channels, 5, 7)
    assert torch.equal(first.train.x, torch.from_numpy(train).float())
    assert torch.equal(first.train.x, last.train.x)
    assert torch.equal(first.test.x, last.test.x)


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.int32, np.bool_])
def test_rows_of_numbers_are_kept_as_they_are(kind: type[np.generic], tmp_path: Path) -> None:
    rows = (np.arange(18).reshape(6, 3) % 2 * 7 - 3).astype(kind)
    dataset = load(tmp_path, x_train=rows, x_test=rows[:3])
    assert dataset.shape == (3,)
    assert dataset.train.x.tolist() == rows.astype(float).tolist()


@pytest.mark.parametrize("names", [[7, 7, 3, 3, 9, 9], list("bbaacc")])
def test_natural_clients_are_numbered_in_sorted_order(names: list[object], tmp_path: Path) -> None:
    groups = load(tmp_path, client_train=np.array(names)).groups
    assert groups is not None
    assert groups.tolist() == [1, 1, 0, 0, 2, 2]


FLOATS = np.full((6, 5, 4), 0.5)
NAN = FLOATS.copy()
NAN[2, 1, 3] = np.nan
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "missing key": (
        {"x_train": None, "xtrain": FLOATS},
        r"no array 'x_train': did you mean 'xtrain'\? it holds .*y_test",
    ),
    "both could be channels": (
        {"x_train": np.zeros((6, 3, 3, 3))},
        r"x_train has shape \(6, 3, 3, 3\): axes 1 and 3 could both .*\(N, H, W\)",
    ),
    "no channels": ({"x_train": np.zeros((6, 5, 5, 5))}, "neither axis 1 nor axis 3 can"),
    "six axes": (
        {"x_train": np.zeros((6, 1, 1, 2, 5, 4))},
        r"x_train has shape .*expected images.*data.layout",
    ),
    "empty": ({"x_train": np.zeros((0, 5, 4))}, r"x_train has shape \(0, 5, 4\)"),
    "not a number": ({"x_train": NAN}, r"x_train is nan at index \(2, 1, 3\)"),
    "too large for float32": ({"x_train": np.full((6, 2), 1e300)}, r"x_train is 1e\+300 at index"),
    "out of range": ({"x_train": FLOATS * 500}, r"ranges from 250 to 250; .*\[0, 1\].*rescale"),
    "negative pixels": ({"x_train": FLOATS - 1}, r"ranges from -0.5 to -0.5; .*\[0, 1\]"),
    "pixels as integers": ({"x_train": np.zeros((6, 5, 4), int)}, "x_train is int64.*uint8"),
    "strings": ({"x_train": np.array([["a"]] * 6)}, "x_train is <U1; expected numbers"),
    "other shape": ({"x_test": np.zeros((3, 6, 4), np.uint8)}, r"x_test has shape \(1, 6, 4\)"),
    "other scale": ({"x_test": FLOATS[:3]}, "x_train is uint8, x_test float64.*same type"),
    "fewer labels": ({"y_train": np.zeros(5, int)}, r"y_train has shape \(5,\); expected \(6,\)"),
    "one-hot": ({"y_train": np.zeros((6, 3), int)}, r"y_train has shape \(6, 3\); expected \(6,\)"),
    "float labels": ({"y_test": np.array([0.5, 1, 2])}, "y_test is float64, 0.5 at index 0"),
    "negative label": ({"y_train": np.array([0, 1, 2, 0, -1, 2])}, "y_train is -1 at index 4"),
    "label as identifier": ({"y_train": np.array([0, 1, 70, 0, 1, 2])}, "y_train is 70 at index 2"),
    "unknown test label": (
        {"y_test": np.array([0, 3, 2])},
        r"y_test is 3 at index 1; expected 0\.\.2: y_train's classes",
    ),
    "client length": ({"client_train": np.zeros(5, int)}, r"client_train .*expected \(6,\)"),
    "client type": ({"client_train": np.zeros(6)}, "client_train is float64.*integer or a string"),
    "objects": ({"y_test": np.array([0, None, 2])}, "cannot be read as .npz .*no objects"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_line_names_the_array_and_what_is_wrong(fault: str, tmp_path: Path) -> None:
    changes, complaint = FAULTS[fault]
    with pytest.raises(DataError, match=f"mine.npz: .*{complaint}") as caught:
        load(tmp_path, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["client_train.npy", "client_train"])  # numpy takes both
def test_a_file_that_would_fill_memory_is_refused_before_it_is_unpacked(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, **contents())
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        file.open(name, "w") as part,
    ):
        for _ in range(300):
            part.write(bytes(1_000_000))
    with pytest.raises(
        DataError, match=rf"unpacks {re.escape(name)} from 1\.3. MB to 0\.3 GB.*numpy\.savez"
    ):
        data.load(Data(name=str(path)), seed=0)


def test_a_class_without_training_samples_is_warned_of(tmp_path: Path, warned: list[str]) -> None:
    sound.look_over(load(tmp_path, y_train=np.array([0, 2, 2, 0, 0, 2])))
    assert (
        "no sample for training of '1': nothing can learn them; give more of them or drop them"
        in "".join(warned)
    )


def test_a_missing_file_and_a_single_array_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.npz: No such file"):
        data.load(Data(name=str(tmp_path / "nowhere.npz")), seed=0)
    with (tmp_path / "single.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match=r"single\.npz: is a single array"):
        data.load(Data(name=str(tmp_path / "single.npz")), seed=0)


@given(
    damage=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=3),
    cut=st.none() | st.integers(0, 2000),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_a_damaged_file_loads_or_is_refused_in_one_line(
    damage: list[tuple[int, int]], cut: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, **contents())
    raw = bytearray(path.read_bytes())[:cut]
    for place, value in damage:
        if raw:
            raw[place % len(raw)] = value
    path.write_bytes(raw)
    complaint, dataset = "", None
    try:
        dataset = data.load(Data(name=str(path)), seed=0)
    except DataError as error:
        complaint = str(error)
    if dataset is None:
        assert complaint.startswith(f"{path}: ")
        assert "\n" not in complaint
    else:  # the damage hit nothing that counts: the zip's checksums catch the rest
        np.testing.assert_allclose(dataset.train.x[:, 0], contents()["x_train"] / 255, rtol=1e-6)
