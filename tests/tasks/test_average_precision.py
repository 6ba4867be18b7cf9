"""Average precision of boxes is pycocotools', but for ties in a bin of confidence."""

import contextlib
import io

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from fedkd.tasks import Score
from fedkd.tasks.boxes.geometry import PADDING, overlap
from fedkd.tasks.scores.boxes import average_precision_of_boxes
from fedkd.tasks.scores.curves import BINS, bin_of

CLASSES, SIDE = 3, 100
OVERLAPS = tuple(n / 100 for n in range(50, 100, 5))


def drawn(seed: int, images: int = 12, most: int = 6, found: int = 20) -> tuple[Tensor, Tensor]:
    """Found boxes (N, K, 6), half of them near true ones, and true ones (N, M, 5)."""
    draws = np.random.default_rng(seed)
    true = np.full((images, most, 5), float(PADDING))
    guess = np.zeros((images, found, 6))
    for image in range(images):
        count = draws.integers(1, most + 1)
        corner = draws.uniform(0, SIDE - 40, (count, 2))
        true[image, :count, 0] = draws.integers(0, CLASSES, count)
        true[image, :count, 1:3] = corner
        true[image, :count, 3:] = corner + draws.uniform(10, 40, (count, 2))
        near = true[image, draws.integers(0, count, found)]
        shift = draws.normal(0, 3, (found, 4)) * (draws.random((found, 1)) < 0.7)
        guess[image, :, :5] = near
        guess[image, :, 1:5] += shift
        other = draws.random(found) < 0.3
        guess[image, other, 0] = draws.integers(0, CLASSES, other.sum())
    guess[..., 3:5] = np.maximum(guess[..., 3:5], guess[..., 1:3] + 1)
    guess[..., 5] = draws.normal(0, 3, guess.shape[:2])
    order = np.argsort(-guess[..., 5], axis=1)
    guess = np.take_along_axis(guess, order[..., None], axis=1)
    return torch.from_numpy(guess).float(), torch.from_numpy(true).float()


def coco(found: Tensor, true: Tensor, overlaps: tuple[float, ...]) -> list[float]:
    """By pycocotools, of each class; -1 of one that there is none of."""

    def box(row: list[float]) -> list[float]:
        return [row[0], row[1], row[2] - row[0], row[3] - row[1]]

    truth, guesses = [], []
    for image, rows in enumerate(true.tolist(), start=1):
        for kind, *corners in rows:
            if kind != PADDING:
                width, height = corners[2] - corners[0], corners[3] - corners[1]
                about = {"image_id": image, "category_id": int(kind) + 1, "bbox": box(corners)}
                about |= {"id": len(truth) + 1, "iscrowd": 0, "area": width * height}
                truth.append(about)
    for image, rows in enumerate(found.tolist(), start=1):
        for kind, *corners, odds in rows:
            if kind != PADDING:
                about = {"image_id": image, "category_id": int(kind) + 1, "bbox": box(corners)}
                guesses.append({**about, "score": odds})
    held = COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        held.dataset = {
            "info": {},
            "images": [{"id": n} for n in range(1, len(true) + 1)],
            "categories": [{"id": n} for n in range(1, CLASSES + 1)],
            "annotations": truth,
        }
        held.createIndex()
        run = COCOeval(held, held.loadRes(guesses), "bbox")
        run.params.iouThrs = np.array(overlaps)
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"][:, :, :, 0, -1]  # overlaps, recalls, classes
    return precision.mean(axis=(0, 1)).tolist()


def spread_over_bins(found: Tensor) -> Tensor:
    """The same boxes in the same order over all images, each in a bin of its own."""
    ranks = found[..., 5].flatten().argsort().argsort().reshape(found.shape[:2])
    assert ranks.numel() < BINS
    place = (ranks.double() + 0.5) / (BINS / 2) - 1
    odds = 4 * place / (1 - place.abs())
    assert bin_of(odds).flatten().unique().numel() == ranks.numel()
    return torch.cat([found[..., :5].double(), odds[..., None]], dim=2)


@pytest.mark.parametrize("overlaps", [(0.5,), OVERLAPS])
@pytest.mark.parametrize("seed", range(2))
def test_boxes_in_bins_of_their_own_score_as_in_coco(
    seed: int, overlaps: tuple[float, ...]
) -> None:
    found, true = drawn(seed)
    found = spread_over_bins(found)
    score = average_precision_of_boxes("ap", *overlaps)(CLASSES)
    figures = score.of(found, true.double())
    np.testing.assert_allclose(figures["ap_by_class"], coco(found, true, overlaps), atol=1e-9)
    assert figures["ap"] == pytest.approx(np.mean(figures["ap_by_class"]))


def test_bins_cost_no_more_than_a_hundredth() -> None:
    found, true = drawn(5, images=40)
    figures = average_precision_of_boxes("ap", *OVERLAPS)(CLASSES).of(found, true)
    np.testing.assert_allclose(figures["ap_by_class"], coco(found, true, OVERLAPS), atol=0.01)


def score(classes: int = CLASSES) -> Score:
    return average_precision_of_boxes("ap50", 0.5)(classes)


def test_counters_of_parts_add_up_to_those_of_the_whole() -> None:
    found, true = drawn(9)
    parts = [score().tally(found[rows], true[rows]) for rows in (slice(0, 5), slice(5, None))]
    assert torch.equal(parts[0] + parts[1], score().tally(found, true))


def test_no_counter_is_above_what_the_targets_allow() -> None:
    found, true = drawn(10, most=3)
    assert (score().tally(found, true) <= score().totals(true)).all()
    everything = score().totals(true).expand(2, 1, CLASSES, BINS)
    assert (score().tally(found, true) <= everything).all()


def test_a_class_without_a_true_box_has_no_figure_and_a_padding_box_does_not_count() -> None:
    box = [10.0, 10.0, 20.0, 20.0]
    true = torch.tensor([[[1, *box], [PADDING, *box]]])
    found = torch.tensor([[[1, *box, 2.0], [0, *box, 1.0], [PADDING, *box, -torch.inf]]])
    figures = score(2).of(found, true)
    assert figures == {"ap50": 1.0, "ap50_by_class": [None, 1.0]}
    assert int(score(2).tally(found, true).sum()) == 2
    nothing = torch.full_like(true, PADDING)
    assert score(2).of(found, nothing)["ap50"] is None


def test_a_true_box_is_taken_once() -> None:
    true = torch.tensor([[[0, 0.0, 0.0, 10.0, 10.0]]])
    found = torch.tensor([[[0, 0.0, 0.0, 10.0, 10.0, 3.0], [0, 0.0, 0.0, 10.0, 9.0, 2.0]]])
    misses, hits = score(1).tally(found, true).sum(dim=(1, 2, 3)).tolist()
    assert (misses, hits) == (1, 1)


def test_overlaps_are_intersections_over_unions() -> None:
    left = torch.tensor([[[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]]])
    right = torch.tensor([[[1.0, 1.0, 3.0, 3.0], [0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 6.0, 6.0]]])
    torch.testing.assert_close(overlap(left, right), torch.tensor([[[1 / 7, 1, 0], [0, 0, 0]]]))
