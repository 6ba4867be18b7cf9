"""Arrays of any shape, range and number of columns, in memory or in their file."""

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedkd import config, data, rows
from fedkd.data import Dataset, shared_file
from fedkd.data.readers import arrays
from fedkd.errors import ConfigError, DataError
from fedkd.jobs.simulate import simulate
from fedkd.runs import student
from fedkd.tasks.classification import KIND

NUMBERS = replace(KIND, targets="numbers", strata=None)
DRAW = np.random.default_rng(1)
Y, Y_TEST = np.array([0, 1, 0, 1, 0, 1]), np.array([1, 0, 1])


def contents(x: Any, x_test: Any, **changes: Any) -> dict[str, Any]:
    inputs = {"x_train": x, "x_test": x_test}
    if isinstance(x, dict):
        parts = (("x_train", x), ("x_test", x_test))
        inputs = {f"{base}.{name}": part[name] for base, part in parts for name in part}
    return {**inputs, "y_train": Y, "y_test": Y_TEST} | changes


def save(at: Path, arrays_: dict[str, Any]) -> str:
    """As one .npz file, or a folder if `at` has no suffix."""
    if at.suffix:
        np.savez(at, **arrays_)
    else:
        at.mkdir()
        for name, array in arrays_.items():
            np.save(at / f"{name}.npy", array)
    return str(at)


def load(folder: Path, x: Any, x_test: Any, *, section: Any = None, **changes: Any) -> Dataset:
    name = save(folder / "mine.npz", contents(x, x_test, **changes))
    return data.load(config.Data(name=name, **(section or {})), seed=0)


IMAGES = (
    DRAW.integers(0, 256, (6, 5, 4, 3), np.uint8),
    DRAW.integers(0, 256, (3, 5, 4, 3), np.uint8),
)


def test_a_folder_gives_what_an_npz_gives_and_leaves_inputs_in_their_files(tmp_path: Path) -> None:
    groups = np.array(list("bbaacc"))
    whole = load(tmp_path, *IMAGES, client_train=groups)
    name = save(tmp_path / "folder", contents(*IMAGES, client_train=groups))
    stored = data.load(config.Data(name=name), seed=0)
    assert isinstance(stored.train.x, rows.Mapped)
    assert isinstance(whole.train.x, torch.Tensor)
    for one, other in ((whole.train, stored.train), (whole.test, stored.test)):
        assert torch.equal(rows.whole(one.x), rows.whole(other.x))
        assert torch.equal(one.y, other.y)
    assert whole.groups is not None
    assert stored.groups is not None
    assert torch.equal(whole.groups, stored.groups)
    assert (stored.name, stored.shape) == ("folder", (3, 5, 4))


@pytest.mark.parametrize("packed", [False, True])
def test_a_large_npz_is_mapped_unless_it_is_packed(
    tmp_path: Path, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "LEFT", 500)  # the training inputs' 720 bytes are above
    parts = contents(
        DRAW.random((6, 1, 5, 6), np.float32) * 0.5, np.zeros((1, 1, 5, 6), np.float32)
    )
    parts["y_test"] = Y_TEST[:1]
    (np.savez_compressed if packed else np.savez)(tmp_path / "a.npz", **parts)
    found = data.load(config.Data(name=str(tmp_path / "a.npz")), seed=0)
    assert isinstance(found.train.x, torch.Tensor if packed else rows.Mapped)
    assert isinstance(found.test.x, torch.Tensor)
    assert torch.equal(rows.whole(found.train.x), torch.from_numpy(parts["x_train"]))


def test_a_damaged_member_is_refused_before_it_is_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "LEFT", 500)
    file = tmp_path / "a.npz"
    save(file, contents(np.full((6, 40), 0.25, np.float32), np.zeros((3, 40), np.float32)))
    raw = file.read_bytes()
    value = np.float32(0.25).tobytes()
    file.write_bytes(raw.replace(value, np.float32(0.75).tobytes(), 1))
    with pytest.raises(DataError, match=r"cannot be read as .npz .*x_train"):
        data.load(config.Data(name=str(file)), seed=0)


def test_a_member_that_says_it_is_larger_gets_nothing_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "LEFT", 500)
    zeros = np.zeros((6, 40), np.float32)
    save(tmp_path / "a.npz", contents(zeros, zeros, y_test=Y))
    with (
        zipfile.ZipFile(tmp_path / "a.npz") as file,
        zipfile.ZipFile(tmp_path / "b.npz", "w") as other,
    ):
        for name in file.namelist():
            other.writestr(name, file.read(name).replace(b"(6, 40)", b"(7, 40)"))
    with pytest.raises(DataError, match=r"x_train says that its shape is \(7, 40\)"):
        data.load(config.Data(name=str(tmp_path / "b.npz")), seed=0)


@pytest.mark.parametrize("cut", [10, 100, 200])
def test_a_cut_file_of_a_folder_is_refused_in_one_line(tmp_path: Path, cut: int) -> None:
    name = save(tmp_path / "folder", contents(*IMAGES))
    file = tmp_path / "folder" / "x_train.npy"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"folder: x_train\.npy cannot be read") as caught:
        data.load(config.Data(name=name), seed=0)
    assert "\n" not in str(caught.value)


SHAPES: dict[str, tuple[tuple[int, ...], str | None, tuple[int, ...]]] = {
    "volumes": ((2, 4, 5, 6), None, (2, 4, 5, 6)),
    "series": ((7, 5), "as-stored", (7, 5)),
    "12 bands": ((12, 5, 6), "as-stored", (12, 5, 6)),
    "12 bands last": ((5, 6, 12), "channels-last", (12, 5, 6)),
    "ambiguous": ((3, 5, 3), "channels-last", (3, 3, 5)),
    "volumes, channels last": ((4, 5, 6, 2), "channels-last", (2, 4, 5, 6)),
    "video": ((4, 2, 3, 5, 6), "as-stored", (4, 2, 3, 5, 6)),
}


@pytest.mark.parametrize("case", SHAPES)
def test_records_of_any_shape_are_told_by_their_layout(tmp_path: Path, case: str) -> None:
    stored, layout, expected = SHAPES[case]
    x = DRAW.random((6, *stored))
    dataset = load(tmp_path, x, x[:3], section={"layout": layout})
    assert dataset.shape == expected
    same = np.moveaxis(x, -1, 1) if layout == "channels-last" else x
    assert torch.equal(rows.whole(dataset.train.x), torch.from_numpy(same).float())


@given(low=st.integers(-2000, 0), span=st.integers(1, 5000))
def test_a_public_range_becomes_0_to_1(
    tmp_path_factory: pytest.TempPathFactory, low: int, span: int
) -> None:
    folder = tmp_path_factory.mktemp("range")
    x = np.linspace(low, low + span, 6 * 20).reshape(6, 5, 4).astype(np.int16)
    section = {"range": [low, low + span]}
    for at in (folder / "mine.npz", folder / "mine"):
        name = save(at, contents(x, x[:3]))
        dataset = data.load(config.Data(name=name, **section), seed=0)
        found = rows.whole(dataset.train.x)[:, 0].double()
        np.testing.assert_allclose(found, (x.astype(float) - low) / span, atol=1e-6)


HU = np.full((6, 5, 4), 900, np.int16)


@pytest.mark.parametrize(
    ("x", "section", "complaint"),
    [
        (HU, {}, r"x_train is int16; expected uint8 or floats in \[0, 1\]; or say data.range"),
        (
            HU * 1.0,
            {},
            r"x_train ranges from 900 to 900; .*data\.range = \[low, high\].*scale = 'public'",
        ),
        (HU, {"range": [0, 800]}, r"x_train is 900 at index \(0, 0, 0\); .*data.range, \[0, 800\]"),
        (HU * np.nan, {"range": [0, 800]}, r"x_train is nan at index \(0, 0, 0\)"),
        (np.zeros((6, 7)), {"layout": "channels-last"}, r"x_train has shape \(6, 7\)"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_remedy(
    tmp_path: Path, x: Any, section: Any, complaint: str
) -> None:
    with pytest.raises(DataError, match=f"mine.npz: {complaint}") as caught:
        load(tmp_path, x, x[:3], section=section)
    assert "\n" not in str(caught.value)


def test_a_range_is_for_arrays_and_ascends() -> None:
    with pytest.raises(ConfigError, match=r"data.range is .*it is for .npz files and folders"):
        data.load(config.Data(name="fashion-mnist-sample", range=(0, 1)), seed=0)
    with pytest.raises(ConfigError, match="expected the lower bound first"):
        config.validate(config.Data, {"range": [3, 2]})
    with pytest.raises(ConfigError, match="both scale inputs"):
        config.validate(config.Data, {"range": [0, 2], "limits": {"0": [0, 1]}})


def test_values_of_no_range_are_scaled_by_the_proxy_set_alone(tmp_path: Path) -> None:
    x = DRAW.normal(50, 20, (40, 5, 4))
    x[:, 0] = 1e4 * (np.arange(40) % 2)[:, None]  # far from what a mean in float32 can hold
    parts = contents(x, x[:3], y_train=np.arange(40) % 2)
    public = {"source": "held-out", "size": 10}
    found = []
    for at in (tmp_path / "mine.npz", tmp_path / "mine"):
        section = config.Data(
            name=save(at, parts), scale="public", public=public, partition={"scheme": "iid"}
        )
        whole = data.federate(section, clients=2, seed=0)
        assert whole.public is not None
        proxy = rows.whole(whole.public).double()
        assert proxy.mean().item() == pytest.approx(0, abs=1e-5)
        assert proxy.std(correction=0).item() == pytest.approx(1, abs=1e-5)
        found.append([rows.whole(whole.test.x), rows.whole(whole.clients[1].x)])
        ((low, high),) = whole.scale.values()
        raw = torch.from_numpy(x[:3]).float().double()[:, None]
        expected = (raw - (low + high) / 2) / ((high - low) / 2)
        torch.testing.assert_close(found[-1][0].double(), expected, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


COLUMNS = {
    "image": IMAGES[0],
    "age": DRAW.random(6).astype(np.float32) * 90,
    "words": DRAW.integers(0, 9, (6, 4)),
}


def test_several_arrays_are_the_columns_of_a_table(tmp_path: Path) -> None:
    few = {name: column[:3] for name, column in COLUMNS.items()}
    for at in (tmp_path / "mine.npz", tmp_path / "mine"):
        dataset = data.load(config.Data(name=save(at, contents(COLUMNS, few))), seed=0)
        shapes = rows.shapes_of(dataset.train.x)
        assert shapes == {"image": (3, 5, 4), "age": (), "words": (4,)}
        batch = dataset.train.x[torch.tensor([5, 0])]
        assert batch["words"].dtype == torch.int64
        np.testing.assert_array_equal(batch["words"], COLUMNS["words"][[5, 0]])
        np.testing.assert_allclose(batch["age"], COLUMNS["age"][[5, 0]])
        assert batch["image"].max() <= 1


@pytest.mark.parametrize(
    ("changes", "section", "complaint"),
    [
        ({"x_train": IMAGES[0]}, {}, "has 'x_train' and 'x_train.image'"),
        ({"x_train.age": np.zeros(5)}, {}, "columns of x_train of unlike lengths"),
        ({}, {"range": [0, 1]}, "data.range is for a single array x_train"),
        ({"x_test.more": np.zeros(3)}, {}, "a sample of x_test has shape"),
        ({"x_test.words": np.ones((3, 4))}, {}, "x_train.words is int64, x_test.words float64"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    tmp_path: Path, changes: Any, section: Any, complaint: str
) -> None:
    few = {name: column[:3] for name, column in COLUMNS.items()}
    name = save(tmp_path / "mine.npz", contents(COLUMNS, few) | changes)
    with pytest.raises(DataError, match=complaint):
        data.load(config.Data(name=name, **section), seed=0)


def test_numbers_and_labels_are_targets_too(tmp_path: Path) -> None:
    x = DRAW.random((6, 2))
    prices = DRAW.random((6, 2)).astype(np.float32)
    for y, targets, expected in (
        (prices, "numbers", prices),
        (prices[:, 0], "numbers", prices[:, :1]),
        (np.arange(6), "numbers", np.arange(6.0)[:, None]),
        (np.arange(12).reshape(6, 2) % 2 == 0, "binary", np.arange(12).reshape(6, 2) % 2 == 0),
    ):
        name = save(tmp_path / "mine.npz", contents(x, x[:3], y_train=y, y_test=y[:3]))
        dataset = data.load(config.Data(name=name), seed=0, targets=targets)
        np.testing.assert_array_equal(dataset.train.y, expected)
        assert dataset.train.y.dtype == (torch.float32 if targets == "numbers" else torch.int64)
        assert dataset.classes == len(dataset.class_names) == expected.shape[1]
    for y, targets, complaint in (
        (prices * np.nan, "numbers", "y_train is nan at index .0, 0.; expected a finite"),
        (np.full((6, 2), 2), "binary", "y_train is 2 at index .0, 0.; expected 0 or 1"),
        (Y, "binary", "y_train has shape .6,.; expected .6, labels"),
        (prices, "classes", "y_train has shape .6, 2.; expected .6,.. one label"),
    ):
        name = save(tmp_path / "mine.npz", contents(x, x[:3], y_train=y, y_test=y[:3]))
        with pytest.raises(DataError, match=complaint):
            data.load(config.Data(name=name), seed=0, targets=targets)


CSV = "a,b,hospital,price,rooms\n" + "".join(
    f"{n},{n % 3},h{n % 2},{n * 1.5},{n % 4}\n" for n in range(20)
)


def test_a_csv_has_several_columns_of_numbers_or_labels(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(CSV)
    section = config.Data(name=str(file), label=("price", "rooms"), client="hospital")
    found = data.load(section, seed=0, targets="numbers")
    assert (found.features, found.class_names) == (("a", "b"), ("price", "rooms"))
    every = torch.cat([torch.cat([s.x, s.y], dim=1) for s in (found.train, found.test)])
    assert sorted(every.tolist()) == [[n, n % 3, n * 1.5, n % 4] for n in range(20)]
    assert len(found.test) > 0
    with pytest.raises(DataError, match=r"line 4, column 'rooms': 2 is no label; expected 0 or 1"):
        data.load(section.model_copy(update={"label": ("rooms",)}), seed=0, targets="binary")
    with pytest.raises(ConfigError, match=r"data.label names 2 columns, and a row has one class"):
        data.load(section, seed=0)
    with pytest.raises(ConfigError, match="expected columns, each once"):
        config.validate(config.Data, {"label": ["price", "price"]})
    shared = data.shared(section, seed=0, targets="numbers")
    own = shared_file.read_own(file, "csv", label="label", shared=shared)
    assert own.y.tolist() == [[n * 1.5, n % 4] for n in range(20)]


def test_what_has_no_class_is_not_dealt_by_class(tmp_path: Path) -> None:
    x, y = DRAW.random((6, 2)), DRAW.random(6)
    name = save(tmp_path / "mine.npz", contents(x, x[:3], y_train=y, y_test=y[:3]))
    with pytest.raises(ConfigError, match=r"'dirichlet', which deals by class.*'iid' or 'natural'"):
        data.federate(config.Data(name=name), clients=2, seed=0, task=NUMBERS)
    section = config.Data(name=name, partition={"scheme": "iid"})
    whole = data.federate(section, clients=2, seed=0, task=NUMBERS)
    assert [len(client) for client in whole.clients] == [3, 3]
    with pytest.raises(ConfigError, match="targets are classes, and the task asks for numbers"):
        data.load(config.Data(), seed=0, targets="numbers")


def test_what_parties_share_and_own_keeps_columns_and_numbers(tmp_path: Path) -> None:
    few = {name: column[:3] for name, column in COLUMNS.items()}
    y = DRAW.random((6, 2)).astype(np.float32)
    name = save(tmp_path / "mine.npz", contents(COLUMNS, few, y_train=y, y_test=y[:3]))
    section = config.Data(
        name=name, partition={"scheme": "iid"}, public={"source": "held-out", "size": 2}
    )
    whole = data.federate(section, clients=2, seed=0, task=NUMBERS)
    content = shared_file.to_bytes(whole)
    back = shared_file.parse_shared(content)
    assert shared_file.to_bytes(back) == content
    assert back.targets == "numbers"
    assert rows.shapes_of(back.test.x) == rows.shapes_of(whole.test.x)
    shared_file.write_own(tmp_path / "own.npz", whole.clients[0])
    own = shared_file.read_own(
        tmp_path / "own.npz", "npz", label="", shared=back, layout="as-stored"
    )
    assert torch.equal(own.y, whole.clients[0].y)
    every = torch.arange(2)
    for column, x in own.x[every].items():
        assert torch.equal(x, whole.clients[0].x[every][column])


def test_a_party_states_the_range_of_its_own_file(tmp_path: Path) -> None:
    x = DRAW.integers(-1000, 3000, (6, 2, 5, 4, 3)).astype(np.int16)
    name = save(tmp_path / "mine", contents(x, x[:3]))
    section = config.Data(name=name, range=(-1024, 3071), partition={"scheme": "iid"})
    shared = data.shared(section, seed=0)
    own = shared_file.read_own(
        tmp_path / "mine", "npz", label="", shared=shared, range=(-1024, 3071)
    )
    assert torch.equal(rows.whole(own.x), rows.whole(data.load(section, seed=0).train.x))


def run(folder: Path, name: str, model: Any, method: str, **changes: Any) -> bytes:
    """The student's file of a federation of two clients."""
    table = {
        "name": "small",
        "data": {
            "name": name,
            "public": {"source": "held-out", "size": 2},
            "partition": {"scheme": "iid"},
        },
        "clients": {"count": 2, "models": [model], "training": {"epochs": 1}},
        "student": {"model": model},
        "method": {"name": method},
        "rounds": 1,
    }
    simulate(config.parse(table | changes), folder)
    return (folder / "student.safetensors").read_bytes()


def test_a_federation_on_a_folder_has_the_student_of_one_on_an_npz(tmp_path: Path) -> None:
    x = DRAW.random((40, 4))
    parts = contents(x, x[:9], y_train=np.arange(40) % 2, y_test=np.arange(9) % 2)
    model = {"name": "mlp", "hidden": [4]}
    names = [save(tmp_path / "mine.npz", parts), save(tmp_path / "mine", parts)]
    students = [run(tmp_path / f"run-{n}", name, model, "fedmd") for n, name in enumerate(names)]
    assert students[0] == students[1]


@pytest.mark.parametrize("method", ["fedavg", "fedmd"])
def test_a_federation_learns_from_tables(tmp_path: Path, method: str) -> None:
    few = {name: column[:3] for name, column in COLUMNS.items()}
    name = save(tmp_path / "mine", contents(COLUMNS, few))
    assert run(tmp_path / "run", name, "own_models:ByColumn", method)
    with pytest.raises(DataError, match="has a student of named columns"):
        student.load(tmp_path / "run")


def test_what_takes_one_tensor_refuses_a_table_in_one_line(tmp_path: Path) -> None:
    few = {name: column[:3] for name, column in COLUMNS.items()}
    name = save(tmp_path / "mine.npz", contents(COLUMNS, few))
    with pytest.raises(ConfigError, match=r"'mlp' takes records of one tensor.* image, age, words"):
        run(tmp_path / "run", name, "mlp", "fedavg")
    private = {"unit": "record", "epsilon": 8.0}
    with pytest.raises(
        ConfigError, match="DP-SGD cannot train the model: records have the columns"
    ):
        run(tmp_path / "run", name, "own_models:ByColumn", "fedavg", privacy=private)
