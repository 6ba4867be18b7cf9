"""Boxes from files: Pascal VOC's XML, one for an image, and COCO's JSON, one for all."""

import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedkd.data.readers.arrays import Array, FaultError
from fedkd.data.readers.pictures.picture import Window
from fedkd.names import choices
from fedkd.tasks.boxes.geometry import LEAST, PADDING

_VOC_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class Box(NamedTuple):
    """A box of a class by name, in pixels from the image's top left corner."""

    name: str
    left: float
    top: float
    right: float
    bottom: float


def voc(text: str) -> list[Box]:
    """The boxes of one image, as Pascal VOC writes them: `object`s with `name` and `bndbox`.

    Pixels are counted from 1 there, the last one included, so that a box from 1 to W is the whole
    width of an image: here it is from 0 to W.

    Raises:
        FaultError: it is no XML, or an object lacks something.
    """
    try:
        root = ET.fromstring(text)  # noqa: S314
    except ET.ParseError as error:
        raise FaultError(f"is no XML ({error}); expected Pascal VOC's annotation") from error
    return [_voc_box(each, number) for number, each in enumerate(root.iter("object"), start=1)]


def _voc_box(found: ET.Element, number: int) -> Box:
    name = (found.findtext("name") or "").strip()
    if not name:
        raise FaultError(f"has no <name> in object {number}; expected a class")
    texts = [found.findtext(f"bndbox/{corner}") for corner in _VOC_CORNERS]
    left, top, right, bottom = (
        _number(text, f"object {number} ({name}) has {corner}")
        for corner, text in zip(_VOC_CORNERS, texts, strict=True)
    )
    return Box(name, left - 1, top - 1, right, bottom)


def coco(text: str) -> tuple[dict[str, list[Box]], tuple[str, ...]]:
    """The boxes of each image by file name, and the names of classes, as COCO has.

    `bbox` is left, top, width and height from 0. What is a crowd (`iscrowd`) is left out.

    Raises:
        FaultError: it is no such JSON, or an annotation names an image or a category that is not
            there.
    """
    try:
        held = json.loads(text)
        images = {each["id"]: str(each["file_name"]) for each in held["images"]}
        names = {each["id"]: str(each["name"]) for each in held["categories"]}
        annotations = list(held["annotations"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FaultError(
            f"is not COCO's JSON ({type(error).__name__}: {error}); expected images with id and "
            "file_name, categories with id and name, and annotations"
        ) from error
    boxes: dict[str, list[Box]] = {file: [] for file in images.values()}
    for number, each in enumerate(annotations):
        where = f"annotation {each.get('id', number) if isinstance(each, Mapping) else number}"
        file = _coco_key(each, "image_id", images, where)
        name = _coco_key(each, "category_id", names, where)
        if not each.get("iscrowd", 0):
            boxes[file].append(_coco_box(each, name, where))
    return boxes, tuple(names.values())


def _coco_key(each: Any, key: str, known: Mapping[Any, str], where: str) -> str:
    number = each.get(key) if isinstance(each, Mapping) else None
    if not isinstance(number, Hashable) or number not in known:
        ids = [str(one) for one in known]
        raise FaultError(f"has {key} {number!r} in {where}: {choices(str(number), ids)}")
    return known[number]


def _coco_box(each: Mapping[str, Any], name: str, where: str) -> Box:
    found = each.get("bbox")
    if not isinstance(found, list) or len(found) != 4:
        raise FaultError(f"has bbox {found!r} in {where}; expected [left, top, width, height]")
    left, top, width, height = (_number(value, f"{where} has bbox") for value in found)
    return Box(name, left, top, left + width, top + height)


def _number(value: object, what: str) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise FaultError(f"{what} {value!r}; expected a number of pixels")
    return number


def targets(boxes: Sequence[Box], classes: Sequence[str]) -> Array:
    """Boxes of one image as float32 (m, 5): (class, left, top, right, bottom)."""
    rows = [[classes.index(box.name), *box[1:]] for box in boxes]
    return np.array(rows, np.float32).reshape(-1, 5)


def check(file: str, boxes: Array, height: int, width: int) -> None:
    """Refuse boxes (m, 5) that are not in their image, or are none.

    Raises:
        FaultError: names the first.
    """
    for _, left, top, right, bottom in boxes.tolist():
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise FaultError(
                f"{file} has a box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}), and is "
                f"{width} pixels wide and {height} high; expected left < right and top < bottom, "
                "inside the image"
            )


def cut(boxes: Array, window: Window) -> Array:
    """The boxes (m, 5) of which half is in a window or more: what is left, in its pixels."""
    corner = np.array([window.left, window.top] * 2, np.float32)
    inside = np.clip(boxes[:, 1:] - corner, 0, window.side)
    kept = _areas(inside) >= LEAST * _areas(boxes[:, 1:])
    return np.column_stack([boxes[kept, :1], inside[kept]])


def resized(boxes: Array, before: tuple[int, int], size: tuple[int, int]) -> Array:
    """Boxes (m, 5) of a picture of one height and width, at another."""
    (height, width), (high, wide) = before, size
    factors = np.array([1, *[wide / width, high / height] * 2], np.float32)
    return np.minimum(boxes * factors, np.array([np.inf, wide, high, wide, high], np.float32))


def padded(records: Sequence[Array]) -> Array:
    """Boxes of N records, (m, 5) each, as targets (N, M, 5): see `fedkd.tasks.Targets`."""
    most = max(1, *map(len, records))
    stacked = np.full((len(records), most, 5), PADDING, np.float32)
    for row, boxes in zip(stacked, records, strict=True):
        row[: len(boxes)] = boxes
    return stacked


def _areas(corners: Array) -> Array:
    sides = corners[:, 2:] - corners[:, :2]
    areas: Array = sides.prod(axis=1)
    return areas
