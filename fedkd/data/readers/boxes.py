"""Boxes from files: Pascal VOC's XML, one for an image, and COCO's JSON, one for all."""

import json
import math
import xml.etree.ElementTree as ET  # noqa: S405  expat of Python 3.11 bounds what entities grow to
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fedkd.data.readers.arrays import FaultError
from fedkd.names import choices
from fedkd.tasks.boxes.geometry import PADDING

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
    """The boxes of each image by file name, and the classes in the order of their ids, as COCO has.

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
    except (ValueError, KeyError, TypeError) as error:
        raise FaultError(
            f"is not COCO's JSON ({type(error).__name__}: {error}); expected images with id and "
            "file_name, categories with id and name, and annotations"
        ) from error
    boxes: dict[str, list[Box]] = {file: [] for file in images.values()}
    for number, each in enumerate(annotations):
        where = f"annotation {each.get('id', number) if isinstance(each, Mapping) else number}"
        file, name = _coco_key(each, "image_id", images, where), None
        name = _coco_key(each, "category_id", names, where)
        if not each.get("iscrowd", 0):
            boxes[file].append(_coco_box(each, name, where))
    return boxes, tuple(names[number] for number in sorted(names))


def _coco_key(each: Any, key: str, known: Mapping[Any, str], where: str) -> str:
    number = each.get(key) if isinstance(each, Mapping) else None
    if number not in known:
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
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise FaultError(f"{what} {value!r}; expected a number of pixels")
    return number


def check(boxes: Sequence[Box], size: tuple[int, int]) -> None:
    """Refuse a box that is not in its image, or is none.

    Args:
        boxes: of one image.
        size: its height and width.

    Raises:
        FaultError: names the first.
    """
    height, width = size
    for box in boxes:
        inside = box.left >= 0 and box.top >= 0 and box.right <= width and box.bottom <= height
        if not inside or box.left >= box.right or box.top >= box.bottom:
            raise FaultError(
                f"has a box {tuple(box)} in an image {width} pixels wide and {height} high: "
                "expected left < right and top < bottom, inside the image"
            )


def padded(records: Sequence[Sequence[Box]], classes: Sequence[str], most: int) -> Tensor:
    """Boxes of N records as targets: float32 (N, M, 5), M = `most`, see `fedkd.tasks.Targets`.

    Raises:
        FaultError: a box is of a class that is none of `classes`.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    targets = torch.full((len(records), most, 5), float(PADDING))
    for row, boxes in enumerate(records):
        for column, box in enumerate(boxes):
            if box.name not in numbers:
                raise FaultError(
                    f"has a box of class {box.name!r}: {choices(box.name, list(classes))}"
                )
            targets[row, column] = torch.tensor([numbers[box.name], *box[1:]])
    return targets


def cut(
    boxes: Sequence[Box], corner: tuple[int, int], side: int, *, least: float = 0.5
) -> list[Box]:
    """The boxes of a square cut out of a larger image, in the square's own pixels.

    Args:
        boxes: of the image.
        corner: the square's top and left, in the image.
        side: of the square.
        least: the share of a box that must be in the square, or the box is left out.
    """
    top, left = corner
    inside = []
    for box in boxes:
        own = Box(
            box.name,
            max(box.left - left, 0.0),
            max(box.top - top, 0.0),
            min(box.right - left, float(side)),
            min(box.bottom - top, float(side)),
        )
        if _area(own) >= least * _area(box) > 0:
            inside.append(own)
    return inside


def _area(box: Box) -> float:
    return max(box.right - box.left, 0.0) * max(box.bottom - box.top, 0.0)
