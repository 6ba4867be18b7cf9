import json

import numpy as np
import pytest
import torch
from PIL import Image

from fedkd import config, data
from fedkd.data.readers.arrays import FaultError
from fedkd.data.readers.pictures import boxes
from fedkd.data.readers.pictures.picture import Window
from fedkd.errors import DataError

VOC = """<annotation><object><name>{name}</name><bndbox>
<xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object></annotation>"""
BOXES = {"a": ("tree", 1, 1, 8, 6), "b": ("bush", 3, 2, 5, 4), "c": ("tree", 2, 3, 4, 6)}
AS_ARRAYS = {"a": [1, 0, 0, 8, 6], "b": [0, 2, 1, 5, 4], "c": [1, 1, 2, 4, 6]}


def pictures(root, names, width=8):
    (root / "images").mkdir(parents=True)
    for name in names:
        Image.fromarray(np.zeros((6, width), np.uint8)).save(root / "images" / f"{name}.png")


def voc(root, names, **changes):
    pictures(root, names)
    (root / "boxes").mkdir()
    for name in names:
        kind, *corners = BOXES[name]
        text = VOC.format(*changes.get(name, corners), name=kind)
        (root / "boxes" / f"{name}.xml").write_text(text)


def coco(root, names, **changes):
    pictures(root, names)
    held = {
        "images": [{"id": 7 + n, "file_name": f"{name}.png"} for n, name in enumerate(names)],
        "categories": [{"id": 11, "name": "tree"}, {"id": 4, "name": "bush"}],
        "annotations": [],
    }
    for number, name in enumerate(names):
        _, left, top, right, bottom = AS_ARRAYS[name]
        about = {"id": number, "image_id": 7 + number, "iscrowd": 0}
        about |= {"category_id": 11 if BOXES[name][0] == "tree" else 4}
        about |= {"bbox": [left, top, right - left, bottom - top], **changes}
        held["annotations"].append(about)
    (root / "boxes.json").write_text(json.dumps(held))


def read(path, **keys):
    return data.load(config.Data(name=str(path), **keys), seed=0, targets="boxes")


@pytest.mark.parametrize("write", [voc, coco])
def test_boxes_lie_beside_images(tmp_path, write):
    write(tmp_path / "train" / "north", "ab")
    write(tmp_path / "train" / "south", "c")
    write(tmp_path / "test", "ca")
    found = read(tmp_path)
    assert found.class_names == ("bush", "tree")
    assert found.train.y.tolist() == [[AS_ARRAYS[name]] for name in "abc"]
    assert found.test.y.tolist() == [[AS_ARRAYS[name]] for name in "ac"]
    assert found.groups.tolist() == [0, 0, 1]
    assert found.train.x.shape == (3, 1, 6, 8)


def test_a_crowd_is_left_out_and_an_image_without_a_box_is_padded(tmp_path):
    coco(tmp_path / "train", "ab")
    coco(tmp_path / "test", "b")
    held = json.loads((tmp_path / "train" / "boxes.json").read_text())
    held["annotations"][0]["iscrowd"] = 1
    (tmp_path / "train" / "boxes.json").write_text(json.dumps(held))
    y = read(tmp_path).train.y
    assert y.tolist() == [[[-1] * 5], [AS_ARRAYS["b"]]]


@pytest.mark.parametrize(
    ("write", "changes", "message"),
    [
        (voc, {"a": (1, 1, 9, 6)}, r"a\.png has a box from \(0, 0\) to \(9, 6\).*8 pixels wide"),
        (voc, {"b": (5, 2, 4, 4)}, r"b\.png has a box .*left < right"),
        (voc, {"b": ("", 2, 4, 4)}, r"b\.xml object 1 \(bush\) has xmin ''; expected a number"),
        (coco, {"category_id": 5}, r"boxes\.json has category_id 5 in annotation 0: .*11"),
        (coco, {"category_id": [11]}, r"boxes\.json has category_id \[11\] in annotation 0"),
        (coco, {"bbox": [1, 2, 10**400, 3]}, r"bbox 10+; expected a number of pixels"),
        (coco, {"image_id": 1}, r"boxes\.json has image_id 1 in annotation 0"),
        (coco, {"bbox": [1, 2, 3]}, r"bbox \[1, 2, 3\] in annotation 0; expected \[left, top"),
        (coco, {"bbox": [5, 2, 4, 3]}, r"a\.png has a box from \(5, 2\) to \(9, 5\)"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, write, changes, message):
    write(tmp_path / "train", "ab", **changes)
    coco(tmp_path / "test", "c")
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_may_begin_with_a_byte_order_mark_and_ids_may_be_of_any_type(tmp_path):
    coco(tmp_path / "train", "ab")
    coco(tmp_path / "test", "c")
    file = tmp_path / "train" / "boxes.json"
    file.write_text(
        "\ufeff"
        + file.read_text()
        .replace('"id": 4,', '"id": "four",')
        .replace('"category_id": 4', '"category_id": "four"'),
        encoding="utf-8",
    )
    assert read(tmp_path).train.y.tolist() == [[AS_ARRAYS["a"]], [AS_ARRAYS["b"]]]


def test_a_class_that_only_the_test_set_has_is_refused(tmp_path):
    coco(tmp_path / "train", "ac")
    coco(tmp_path / "test", "ab")
    expected = r"has bush in test/ alone.*or drop them"
    with pytest.raises(DataError, match=expected):
        read(tmp_path)


def test_a_picture_without_its_boxes_is_refused(tmp_path):
    voc(tmp_path / "train", "ab")
    (tmp_path / "train" / "boxes" / "b.xml").unlink()
    voc(tmp_path / "test", "c")
    with pytest.raises(DataError, match=r"no boxes of images/b\.png in train/; expected boxes/b"):
        read(tmp_path)


@pytest.mark.parametrize("text", ["no xml", "<annotation><object></object></annotation>"])
def test_damaged_annotations_are_refused(text):
    with pytest.raises(FaultError, match=r"is no XML|has no <name> in object 1"):
        boxes.voc(text)


@pytest.mark.parametrize("text", ["no json", "[]", "[" * 100_000])
def test_what_is_not_cocos_is_refused(text):
    with pytest.raises(FaultError, match="is not COCO's JSON"):
        boxes.coco(text)


def test_a_window_has_the_boxes_of_which_half_is_in_it():
    held = np.array([[0, 0, 0, 10, 10], [1, 0, 2, 10, 10], [0, 10, 2, 14, 6]], np.float32)
    window = Window(top=2, left=4, side=8, fresh_top=2, fresh_left=4)
    assert boxes.cut(held, window).tolist() == [[1, 0, 0, 6, 8], [0, 6, 0, 8, 4]]


def write_arrays(path, train, test=((0, 1, 1, 3, 3),)):
    arrays = {
        "x_train": np.zeros((1, 6, 8), np.uint8),
        "x_test": np.zeros((1, 6, 8), np.uint8),
        "y_train": np.array([train], np.float32),
        "y_test": np.array([test], np.float32),
    }
    np.savez(path, **arrays)
    return path


def test_arrays_hold_boxes_too(tmp_path):
    rows = [(1, 0, 0, 8, 6), (0, 1, 1, 2, 2), (-1, 0, 0, 0, 0)]
    found = read(write_arrays(tmp_path / "a.npz", rows))
    assert (found.classes, found.train.y.tolist()) == (2, [[list(row) for row in rows]])
    assert found.train.y.dtype == torch.float32


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([(0, 0, 0, 9, 6)], None, r"y_train has the box \[0.0, 0.0, 9.0, 6.0\] in sample 0"),
        ([(0.5, 0, 0, 2, 2)], None, r"y_train\[\.\.\., 0\] is 0\.5 at index .*expected a class"),
        ([(-1, 0, 0, 0, 0)], None, r"y_train has no box; expected at least one"),
        ([(0, 0, 0, 2, np.nan)], None, r"y_train is nan at index"),
        ([(0, 0, 0, 2, 2)], [(1, 0, 0, 2, 2)], r"y_test.* is 1\.0 .*y_train's classes only"),
    ],
)
def test_arrays_that_hold_no_boxes_are_refused(tmp_path, train, test, message):
    path = write_arrays(tmp_path / "a.npz", train, *([test] if test else []))
    with pytest.raises(DataError, match=message):
        read(path)
