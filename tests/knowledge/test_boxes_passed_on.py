"""What detectors pass on, as formulas say in slow loops."""

import numpy as np
import pytest
import torch
from agreement import Array, assert_agrees

from fedkd.knowledge import boxes
from fedkd.tasks.boxes import grid

NEAR = np.array([[[1, 0, 0], [0, 1, 1]], [[0, 0, 0], [0, 0, 0]]], bool)
WEIGHTS = np.array([[[1.0, 0.5, 0], [0, 0.2, 0]], [[0, 0, 0], [0, 0, 0]]])
MARGIN = 0.3


def imitation(student: Array, teacher: Array) -> Array:
    values = []
    for s, t, near in zip(student, teacher, NEAR, strict=True):
        places = [(i, j) for i in range(2) for j in range(3) if near[i, j]]
        total = sum(((s[:, i, j] - t[:, i, j]) ** 2).sum() for i, j in places)
        values.append(total / (2 * max(len(places), 1)))
    return np.array(values)


def bounded(student: Array, teacher: Array, truth: Array) -> Array:
    values = []
    for s, t, y, weights in zip(student, teacher, truth, WEIGHTS, strict=True):
        total = 0.0
        for i in range(2):
            for j in range(3):
                ours, theirs = (((each[i, j] - y[i, j]) ** 2).sum() for each in (s, t))
                total = total + weights[i, j] * ours * (ours + MARGIN > theirs)
        values.append(total / max(weights.sum(), 1e-6))
    return np.array(values)


def test_features_near_objects_are_imitated() -> None:
    near = torch.from_numpy(NEAR)
    loss = lambda s, t: boxes.imitation(s, t, near)  # noqa: E731
    assert_agrees(loss, imitation, [(2, 4, 2, 3), (2, 4, 2, 3)], 1)


def test_shapes_count_where_the_student_is_worse_than_its_teacher() -> None:
    draws = torch.Generator().manual_seed(2)
    student, teacher, truth = torch.randn(3, 2, 2, 3, 4, generator=draws, dtype=torch.float64)
    weights = torch.from_numpy(WEIGHTS)
    found = boxes.bounded(student, teacher, truth, weights, margin=MARGIN)
    expected = bounded(student.numpy(), teacher.numpy(), truth.numpy())
    np.testing.assert_allclose(found.numpy(), expected)
    assert 0 < found[0] < boxes.bounded(student, truth, truth, weights)[0]
    assert not boxes.bounded(truth, teacher, truth, weights).any()


def test_places_near_an_object_are_where_its_own_box_overlaps_it() -> None:
    held = torch.tensor([[[0, 2.0, 2.0, 10.0, 6.0], [-1, 0, 0, 9, 9]], [[-1, 0, 0, 0, 0]] * 2])
    near = grid.near_objects(held, (4, 6), stride=2, share=0.5)
    expected = np.zeros((4, 6), bool)
    overlaps = np.zeros((4, 6))
    for row in range(4):
        for column in range(6):
            dx, dy = abs(2 * column + 1 - 6), abs(2 * row + 1 - 4)
            shared = max(8 - dx, 0) * max(4 - dy, 0)
            overlaps[row, column] = shared / (64 - shared)
    expected = overlaps >= 0.5 * overlaps.max()
    assert np.array_equal(near[0].numpy(), expected)
    assert 1 < expected.sum() < 12
    assert not near[1].any()


def test_shapes_that_do_not_fit_are_refused() -> None:
    maps = torch.zeros(2, 4, 2, 3)
    with pytest.raises(ValueError, match="near"):
        boxes.imitation(maps, maps, torch.zeros(2, 3, 3, dtype=torch.bool))
