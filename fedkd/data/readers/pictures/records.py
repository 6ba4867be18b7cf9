"""Pictures that were found as records: read, brought to one form, cut where that is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedkd.data.readers.arrays import Array, FaultError
from fedkd.data.readers.pictures import picture
from fedkd.data.readers.pictures.folder_kinds import FolderKind, Labelled
from fedkd.data.readers.pictures.form import PictureForm, resized, slices


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture in memory.

    Attributes:
        found: where it was found, and what is told of it.
        values: float32 (H, W, C) in [0, 1]; of a volume (D, H, W, C).
    """

    found: Labelled
    values: Array


def read(found: Labelled, form: PictureForm, kind: FolderKind) -> Picture:
    """A picture and what is told of it, in the form that is asked for; it raises `FaultError`."""
    return checked(found, form.read(found.file, turn=not kind.located), form, kind)


def checked(
    found: Labelled, values: NDArray[np.float32], form: PictureForm, kind: FolderKind
) -> Picture:
    """A picture of the size that is asked for, whose values are there."""
    kind.check(found, values.shape[:-1])
    if form.size is None or values.shape[-3:-1] == form.size:
        return Picture(found, values)
    target = kind.resize(found.target, values.shape[-3:-1], form.size)
    return Picture(Labelled(found.file, target), resized(values, form.size))


def of(
    pictures: Sequence[Picture], form: PictureForm, kind: FolderKind
) -> tuple[list[Array], list[Array]]:
    """Inputs (H, W, C) of one client or the test set, and what is told of each."""
    pairs = [(each.values, each.found.target) for each in pictures]
    if form.slices:
        pairs = [
            pair
            for values, target in pairs
            for pair in zip(slices(values, axes=3), kind.sliced(target), strict=False)
        ]
    if form.tile is None:
        return [values for values, _ in pairs], [target for _, target in pairs]
    if kind.cut is None:
        raise FaultError(f"cannot be cut by data.tile = {form.tile}: leave it out for this task")
    inputs, told = [], []
    for values, target in pairs:
        if values.ndim > 3:
            raise FaultError(
                f"holds volumes, which data.tile = {form.tile} cannot cut: say data.slices = true "
                "too, or leave it out"
            )
        height, width = values.shape[:2]
        for window in picture.windows(height, width, form.tile):
            inputs.append(window.of(values, beyond=0.0))
            told.append(kind.cut(target, window))
    return inputs, told


def stacked(told: Sequence[Array], kind: FolderKind) -> Array:
    """Targets of all records."""
    if kind.located and any(each.ndim > 2 for each in told):
        raise FaultError(
            "holds volumes, and the task asks for pictures: say data.slices = true, by which each "
            "slice is one"
        )
    return kind.stack(told)


def together(parts: Sequence[Sequence[Array]]) -> Tensor:
    """All inputs as (N, C, H, W), of volumes (N, C, D, H, W)."""
    every = [each for part in parts for each in part]
    shapes = sorted({each.shape for each in every})
    if len(shapes) > 1:
        one, other = ("x".join(map(str, each)) for each in (shapes[0], shapes[-1]))
        raise FaultError(
            f"has pictures of {one} and of {other} (height, width, channels); expected one size: "
            f"{_remedy(shapes)}"
        )
    return torch.from_numpy(np.moveaxis(np.stack(every), -1, 1).copy())


def _remedy(shapes: Sequence[tuple[int, ...]]) -> str:
    if len({each[-1] for each in shapes}) > 1:
        return "data.channels = 3 makes all of them coloured, 1 grey"
    if len({len(each) for each in shapes}) > 1:
        return "some are volumes, of which data.slices = true makes pictures"
    if any(len(each) > 3 for each in shapes):
        return "data.size = 64 or [64, 80] brings slices to one, data.slices = true makes pictures"
    return "data.size = 64 or [64, 80] brings all to one, data.tile = 64 cuts all into squares"
