"""The losses that came after the survey as their formulas say, in slow loops (see agreement.py)."""

import cmath

import numpy as np
from agreement import Array
from loss_oracles import kd, norm, probabilities


def _standardised(row: Array) -> Array:
    centred = row - sum(row) / len(row)
    deviation = cmath.sqrt(sum(value * value for value in centred) / len(row))
    return np.array([value / deviation for value in centred])


def standardised_kd(student: Array, teacher: Array, temperature: float) -> Array:
    both = (np.array([_standardised(row) for row in each]) for each in (student, teacher))
    return kd(*both, temperature)


def instance_level(student: Array, teacher: Array, temperatures: list[float]) -> Array:
    return np.array(sum(kd(student, teacher, t) for t in temperatures))


def batch_level(student: Array, teacher: Array, temperature: float) -> Array:
    q, p = ([probabilities(row, temperature) for row in each] for each in (student, teacher))
    return np.array([sum((_dot(q[i], b) - _dot(p[i], a)) ** 2 for b, a in zip(q, p, strict=True))
                     for i in range(len(q))])  # fmt: skip


def class_level(student: Array, teacher: Array, temperature: float) -> Array:
    q, p = (
        np.array([probabilities(row, temperature) for row in each]).T for each in (student, teacher)
    )
    return np.array([sum((_dot(q[i], b) - _dot(p[i], a)) ** 2 for b, a in zip(q, p, strict=True))
                     for i in range(len(q))])  # fmt: skip


def _dot(a: list[complex] | Array, b: list[complex] | Array) -> complex:
    return sum(x * y for x, y in zip(a, b, strict=True))


def one_for_all(
    student: Array, teacher: Array, target: list[int], temperature: float, gamma: float
) -> Array:
    values = []
    for s, t, y in zip(student, teacher, target, strict=True):
        q, p = probabilities(s, temperature), probabilities(t, temperature)
        raised = [(1 + v) ** gamma - 1 if c == y else v**gamma for c, v in enumerate(p)]
        values.append(-sum(a * cmath.log(b) for a, b in zip(raised, q, strict=True)))
    return np.array(values)


def discrete(
    student: Array,
    teacher: Array,
    target: list[int],
    costs: list[list[float]],
    temperature: float,
    gamma: float,
    regularisation: float,
    iterations: int,
) -> Array:
    """With the true class cut out of all, and Sinkhorn's scalings as products."""
    values = []
    for s, t, y in zip(student, teacher, target, strict=True):
        taught = -probabilities(t)[y] * cmath.log(probabilities(s)[y])
        rest = [c for c in range(len(s)) if c != y]
        q, p = (probabilities(each[rest], temperature) for each in (s, t))
        cost = [[costs[a][b] for b in rest] for a in rest]
        kernel = [[cmath.exp(-each / regularisation) for each in row] for row in cost]
        u: list[complex] = [1.0 for _ in rest]
        v = u
        every = range(len(rest))
        for _ in range(iterations):
            v = [p[j] / sum(kernel[i][j] * u[i] for i in every) for j in every]
            u = [q[i] / sum(kernel[i][j] * v[j] for j in every) for i in every]
        moved = sum(u[i] * kernel[i][j] * v[j] * cost[i][j] for i in every for j in every)
        values.append(taught + gamma * moved)
    return np.array(values)


def gaussian(student: Array, teacher: Array, ratio: float, grid: int) -> Array:
    """Of maps whose sizes the grid divides."""
    values = []
    for s, t in zip(student, teacher, strict=True):
        total = 0j
        for channel in range(len(s)):
            for row in range(grid):
                for column in range(grid):
                    (m, d), (n, e) = (
                        _moments(_cell(each[channel], row, column, grid)) for each in (s, t)
                    )
                    total += ratio * (m - n) ** 2 + (d - e) ** 2
        values.append(total / grid**2)
    return np.array(values)


def _cell(places: Array, row: int, column: int, grid: int) -> list[complex]:
    high, wide = places.shape[0] // grid, places.shape[1] // grid
    cell = places[row * high : (row + 1) * high, column * wide : (column + 1) * wide]
    return list(cell.flatten())


def _moments(values: list[complex]) -> tuple[complex, complex]:
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return mean, cmath.sqrt(variance + 1e-5)


def hierarchical(student: Array, teacher: Array) -> Array:
    """Of maps 4 x 4: whole, 2 x 2 and 1 x 1."""
    values = []
    for s, t in zip(student, teacher, strict=True):
        total = 0j
        for weight, grid in ((1, 4), (1 / 2, 2), (1 / 4, 1)):
            squares = [
                (_moments(_cell(a, i, j, grid))[0] - _moments(_cell(b, i, j, grid))[0]) ** 2
                for a, b in zip(s, t, strict=True)
                for i in range(grid)
                for j in range(grid)
            ]
            total += weight * sum(squares) / len(squares)
        values.append(total / 1.75)
    return np.array(values)


def contrastive(
    student: Array, teacher: Array, temperature: float, others: list[list[bool]]
) -> Array:
    count = len(student)
    ours, theirs = ([row / norm(row) for row in each] for each in (student, teacher))
    e = [[cmath.exp(_dot(a, b) / temperature) for b in theirs] for a in ours]
    every = [[j for j in range(count) if j != i and others[i][j]] for i in range(count)]
    negatives = [e[i][j].real for i in range(count) for j in every[i]]
    z = sum(negatives) / len(negatives)  # a constant: without the imaginary part
    values = []
    for i, own in enumerate(every):
        k = len(own) * z
        total = -2 * cmath.log(e[i][i] / (e[i][i] + k))
        for j in own:
            total -= cmath.log(1 - e[i][j] / (e[i][j] + k))
            total -= cmath.log(1 - e[j][i] / (e[j][i] + k))
        values.append(total)
    return np.array(values)
