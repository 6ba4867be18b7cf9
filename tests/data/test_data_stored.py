"""Data sets as Hugging Face's library stores them: pictures, tables and texts."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fedkd import config, data
from fedkd.data import Dataset, shared_file
from fedkd.errors import DataError

pytest.importorskip("pyarrow")

from stored_sets import split, splits

DRAWS = np.random.default_rng(11)
LABEL = {"_type": "ClassLabel", "names": ["zebra", "ant"]}
TEXT, NUMBER = ({"_type": "Value", "dtype": dtype} for dtype in ("string", "float32"))


def read(path: Path, targets: str = "classes", **keys: object) -> Dataset:
    asked = config.validate(config.Data, {"name": str(path), **keys})
    return data.load(asked, seed=0, targets=targets)


def png(values: np.ndarray) -> dict[str, object]:
    stream = BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": "a.png"}


@pytest.fixture
def pictured(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Twelve pictures for training, three for testing, and the first's values."""
    values = DRAWS.integers(0, 256, (15, 4, 6, 3), dtype=np.uint8)
    features = {"image": {"_type": "Image"}, "label": LABEL, "who": TEXT}
    for name, rows, files in (("train", range(12), 2), ("test", range(12, 15), 1)):
        columns = {
            "image": [png(values[n]) for n in rows],
            "label": [n % 2 for n in rows],
            "who": [f"site {n % 3}" for n in rows],
        }
        split(tmp_path / "set" / name, columns, features, files)
    splits(tmp_path / "set", ["train", "test"])
    return tmp_path / "set", values


def test_pictures_have_the_classes_of_the_data_set(pictured: tuple[Path, np.ndarray]) -> None:
    path, values = pictured
    found = read(path)
    assert (found.name, found.class_names, found.groups) == ("set", ("zebra", "ant"), None)
    assert torch.equal(found.train.x, torch.from_numpy(values[:12]).permute(0, 3, 1, 2) / 255)
    assert found.train.y.tolist() == [0, 1] * 6
    assert (len(found.test), found.test.y.tolist()) == (3, [0, 1, 0])
    assert read(path, channels=1, size=[2, 2]).shape == (1, 2, 2)


def test_a_column_says_whose_a_picture_is_and_a_split_may_be_alone(
    pictured: tuple[Path, np.ndarray],
) -> None:
    path, _ = pictured
    asked = {"name": str(path / "train"), "client": "who", "partition": {"scheme": "natural"}}
    found = data.federate(config.validate(config.Data, asked), clients=None, seed=2)
    assert len(found.clients) == 3
    assert sum(map(len, found.clients)) + len(found.test) == 12


def test_pictures_may_have_masks(tmp_path: Path) -> None:
    masks = DRAWS.integers(0, 3, (8, 4, 6), dtype=np.uint8)
    images = DRAWS.integers(0, 256, (8, 4, 6), dtype=np.uint8)
    columns = {"image": [png(each) for each in images], "mask": [png(each) for each in masks]}
    split(tmp_path, columns, {key: {"_type": "Image"} for key in columns})
    found = read(tmp_path, "masks", label="mask", test_share=0.4)
    rows = {each.tobytes(): n for n, each in enumerate(images)}
    for x, y in zip(found.train.x, found.train.y, strict=True):
        place = rows[(x[0] * 255).round().to(torch.uint8).numpy().tobytes()]
        assert torch.equal(y, torch.from_numpy(masks[place]).long())


def test_a_table_is_read_by_the_rules_of_csv(tmp_path: Path) -> None:
    count = range(40)
    columns = {
        "sex": ["mf"[n % 2] for n in count],
        "age": [float(n) for n in count],
        "label": [n % 2 for n in count],
    }
    split(tmp_path / "set", columns, {"sex": TEXT, "age": NUMBER, "label": LABEL}, files=3)
    lines = ["sex,age,label"]
    lines += [f"{'mf'[n % 2]},{n},{LABEL['names'][n % 2]}" for n in count]
    (tmp_path / "same.csv").write_text("\n".join(lines))
    codes = {"sex": ["m", "f"]}
    one, other = (read(tmp_path / name, codes=codes) for name in ("set", "same.csv"))
    assert one.features == other.features == ("sex=m", "sex=f", "age")
    assert one.class_names == other.class_names == ("ant", "zebra")
    assert torch.equal(one.train.x, other.train.x)
    assert torch.equal(one.test.y, other.test.y)


def test_texts_have_the_names_of_their_classes(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    features = {"text": TEXT, "label": LABEL}
    for name, count in (("train", 12), ("test", 4)):
        texts = [f"text number {n}" for n in range(count)]
        split(tmp_path / name, {"text": texts, "label": [n % 2 for n in range(count)]}, features)
    splits(tmp_path, ["train", "test"])
    (tmp_path / "public.txt").write_text("text number\nnumber of a text\n")
    found = read(tmp_path, text={"texts": str(tmp_path / "public.txt"), "length": 16})
    assert (len(found.train), len(found.test), found.class_names) == (12, 4, ("ant", "zebra"))


def test_a_site_s_own_are_read_by_the_classes_that_the_parties_agreed_on(
    pictured: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    path, values = pictured
    asked = config.validate(config.Data, {"name": str(path)})
    shared = shared_file.parse_shared(shared_file.to_bytes(data.shared(asked, seed=0)))
    own = {"_type": "ClassLabel", "names": ["ant", "zebra"]}
    columns = {"photo": [png(values[0])] * 2, "kind": [0, 1]}
    split(tmp_path / "own", columns, {"photo": {"_type": "Image"}, "kind": own})
    samples = shared_file.read_own(tmp_path / "own", "npz", label="kind", shared=shared)
    assert samples.y.tolist() == [1, 0]  # by names: here ant is 0, to the parties 1


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda path: (path / "train" / "state.json").write_text("{"), "state.json"),
        (lambda path: (path / "train" / "data-00001-of-00002.arrow").write_bytes(b"x"), "train: "),
        (lambda path: (path / "train" / "data-00001-of-00002.arrow").unlink(), "train: "),
        (lambda path: splits(path, ["test"]), "has the splits test; expected 'train'"),
    ],
)
def test_what_is_damaged_is_named(pictured, spoil, complaint) -> None:
    path, _ = pictured
    spoil(path)
    with pytest.raises(DataError, match=complaint) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_what_the_data_set_has_not_is_named(pictured: tuple[Path, np.ndarray]) -> None:
    path, _ = pictured
    with pytest.raises(
        DataError, match=r"no column 'labels' \(data\.label\): did you mean 'label'"
    ):
        read(path, label="labels")
    with pytest.raises(DataError, match="holds pictures, and the task asks for boxes"):
        read(path, "boxes")


@pytest.mark.parametrize("name", ["../mine/data-00000-of-00001.arrow", "/etc/passwd", "..", 7])
def test_a_data_set_names_no_file_but_its_own(tmp_path: Path, name: object) -> None:
    columns, features = {"x": [1.0], "label": [0]}, {"x": NUMBER, "label": LABEL}
    split(tmp_path / "mine", columns, features)
    split(tmp_path / "theirs", columns, features)
    (tmp_path / "theirs" / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": name}]})
    )
    with pytest.raises(DataError, match="as a part of itself"):
        read(tmp_path / "theirs")
    (tmp_path / "theirs" / "state.json").unlink()
    splits(tmp_path / "theirs", [name])
    with pytest.raises(DataError, match="as a part of itself"):
        read(tmp_path / "theirs")
