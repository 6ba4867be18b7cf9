"""Answers of a model about a large image, a tile at a time."""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from fedkd.learning import evaluate


def answer(model: nn.Module, image: Tensor, *, side: int, overlap: int) -> Tensor:
    """What a model answers at each pixel of an image, in evaluation mode and without gradient.

    Each pixel's answer is that of the tile in whose middle it stands most: nearer to a tile's edge
    a model sees less around a pixel. So it is the answer about the whole image if a model looks no
    further than half the overlap, and memory is that of a few tiles.

    Args:
        model: images (N, C, side, side) -> answers (N, side, side, *A).
        image: (C, H, W), H and W at least `side`.
        side: of a tile, in pixels.
        overlap: by how many pixels neighbours overlap, at least 0 and below `side`.

    Returns:
        (H, W, *A), where the image is.

    Raises:
        ValueError: the image is smaller than a tile, or the overlap is out of range.
    """
    height, width = image.shape[1:]
    if not 0 <= overlap < side <= min(height, width):
        raise ValueError(
            f"tiles of {side=} and {overlap=} of an image {height}x{width}: expected an overlap "
            "below the side, and a side of at most the image's"
        )
    rows = []
    for top, first, last in _tiles(height, side, overlap):
        columns = list(_tiles(width, side, overlap))
        band = torch.stack([image[:, top : top + side, left : left + side] for left, *_ in columns])
        answers = evaluate.answers(model, band)[:, first - top : last - top]
        parts = [
            one[:, begin - left : end - left]
            for one, (left, begin, end) in zip(answers, columns, strict=True)
        ]
        rows.append(torch.cat(parts, dim=1))
    return torch.cat(rows)


def _tiles(length: int, side: int, overlap: int) -> Iterator[tuple[int, int, int]]:
    """Along one axis: where each tile begins, and from where to where its answers count."""
    starts = [*range(0, length - side, side - overlap), length - side]
    borders = [0, *((one + side + after) // 2 for one, after in pairwise(starts)), length]
    yield from zip(starts, borders, borders[1:], strict=False)
