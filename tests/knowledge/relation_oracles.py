"""The losses that compare a batch's samples as their formulas say, in slow loops (agreement.py)."""

import cmath
import math

import numpy as np
from agreement import Array
from loss_oracles import absolute, norm


def smooth_l1(gap: complex) -> complex:
    return gap * gap / 2 if abs(gap.real) < 1 else absolute(gap) - 0.5


def cosine(a: Array, b: Array) -> complex:
    return sum((a * b).flatten()) / (norm(a) * norm(b))


def similarity(student: Array, teacher: Array) -> Array:
    """Squared distance of the Gram matrices with rows at length 1, over N, row by row."""
    s, t = _gram(student), _gram(teacher)
    return np.array([sum((a - b) ** 2) / len(s) for a, b in zip(s, t, strict=True)])


def _gram(features: Array) -> list[Array]:
    rows = [np.array([sum((a * b).flatten()) for b in features]) for a in features]
    return [row / norm(row) for row in rows]


def pkt(student: Array, teacher: Array) -> Array:
    s, t = _near(student), _near(teacher)
    size = len(s)
    return np.array(
        [
            sum(t[i][j] * cmath.log(t[i][j] / s[i][j]) for j in range(size)) / size
            for i in range(size)
        ]
    )


def neighbourhood(student: Array, teacher: Array, *, tau: float) -> Array:
    found = []
    for i in range(len(student)):
        others = [j for j in range(len(student)) if j != i]
        s, t = (
            [cmath.exp(cosine(each[i], each[j]) / tau) for j in others]
            for each in (student, teacher)
        )
        p, q = ([value / sum(each) for value in each] for each in (s, t))
        found.append(sum(b * cmath.log(b / a) for a, b in zip(p, q, strict=True)))
    return np.array(found)


def _near(features: Array) -> list[list[complex]]:
    kernel = [[(cosine(a, b) + 1) / 2 for b in features] for a in features]
    return [[value / sum(row) for value in row] for row in kernel]


def congruence(student: Array, teacher: Array, gamma: float, order: int) -> Array:
    values = []
    for i in range(len(student)):
        gaps = [
            _taylor(cosine(student[i], student[j]), gamma, order)
            - _taylor(cosine(teacher[i], teacher[j]), gamma, order)
            for j in range(len(student))
        ]
        values.append(sum(gap * gap for gap in gaps) / len(gaps))
    return np.array(values)


def _taylor(cos: complex, gamma: float, order: int) -> complex:
    powers = [(2 * gamma * cos) ** p / math.factorial(p) for p in range(order + 1)]
    return cmath.exp(-2 * gamma) * sum(powers)


def relative_distances(features: Array, power: int = 1) -> list[list[complex]]:
    """|x_i - x_j|^power in units of the mean over i != j."""
    found = [[norm(a - b) ** power for b in features] for a in features]
    unlike = [value for i, row in enumerate(found) for j, value in enumerate(row) if i != j]
    mean = sum(unlike) / len(unlike)
    return [[value / mean for value in row] for row in found]


def distance(student: Array, teacher: Array) -> Array:
    pairs = zip(relative_distances(student), relative_distances(teacher), strict=True)
    return np.array([_mean_gap(s, t) for s, t in pairs])


def _mean_gap(student: list[complex], teacher: list[complex]) -> complex:
    gaps = [smooth_l1(a - b) for a, b in zip(student, teacher, strict=True)]
    return sum(gaps) / len(gaps)


def angle(student: Array, teacher: Array) -> Array:
    size = len(student)
    return np.array(
        [
            sum(
                smooth_l1(_cosine_at(student, i, j, k) - _cosine_at(teacher, i, j, k))
                for j in range(size)
                for k in range(size)
            )
            / size**2
            for i in range(size)
        ]
    )


def _cosine_at(features: Array, i: int, j: int, k: int) -> complex:
    return 0 if i in {j, k} else cosine(features[j] - features[i], features[k] - features[i])


def areas(student: Array, teacher: Array, tuples: list[list[int]]) -> Array:
    """Smooth L1 of squared distances from a tuple's first sample, summed over its others."""
    s, t = ([_spread(features[row]) for row in tuples] for features in (student, teacher))
    return np.array([smooth_l1(a - b) for a, b in zip(s, t, strict=True)])


def _spread(points: Array) -> complex:
    return sum(sum(((each - points[0]) ** 2).flatten()) for each in points[1:])
