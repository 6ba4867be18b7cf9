"""Each loss as its formula says, in slow loops over Python's complex numbers (see agreement.py)."""

import cmath
import math

import numpy as np
from agreement import Array


def probabilities(row: Array, temperature: float = 1.0) -> list[complex]:
    powers = [cmath.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def norm(values: Array) -> complex:
    return cmath.sqrt(sum(value * value for value in values.flatten()))


def absolute(value: complex) -> complex:
    return value if value.real >= 0 else -value


def divergence(p: list[complex], q: list[complex]) -> complex:
    return sum(a * (cmath.log(a) - cmath.log(b)) for a, b in zip(p, q, strict=True))


def kd(student: Array, teacher: Array, temperature: float) -> Array:
    return np.array(
        [
            temperature**2
            * divergence(probabilities(t, temperature), probabilities(s, temperature))
            for s, t in zip(student, teacher, strict=True)
        ]
    )


def soft_cross_entropy(student: Array, target: Array) -> Array:
    return np.array(
        [
            -sum(p * cmath.log(q) for p, q in zip(row, probabilities(s), strict=True))
            for s, row in zip(student, target, strict=True)
        ]
    )


def mae(student: Array, teacher: Array) -> Array:
    return np.array(
        [
            sum(absolute(a - b) for a, b in zip(s, t, strict=True)) / len(s)
            for s, t in zip(student, teacher, strict=True)
        ]
    )


def one_hot(teacher: Array) -> Array:
    return np.array([-cmath.log(probabilities(row)[np.argmax(row.real)]) for row in teacher])


def activation(features: Array) -> Array:
    return np.array([-sum(map(absolute, row.flatten())) / row.size for row in features])


def information_entropy(teacher: Array) -> complex:
    rows = [probabilities(row) for row in teacher]
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    return sum(mean * cmath.log(mean) for mean in means)


def bn_statistics(mean: Array, variance: Array, running_mean: Array, running_var: Array) -> complex:
    return norm(mean - running_mean) + norm(variance - running_var)


def total_variation(x: Array) -> Array:
    return np.array([sum(norm(_differences(image, *d)) for d in DIRECTIONS) for image in x])


DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))


def _differences(image: Array, down: int, right: int) -> Array:
    channels, height, width = image.shape
    return np.array(
        [
            image[c, i, j] - image[c, i + down, j + right]
            for c in range(channels)
            for i in range(height - down)
            for j in range(width)
            if 0 <= j + right < width
        ]
    )


def l2(x: Array) -> Array:
    return np.array([norm(row) for row in x])


def competition(student: Array, teacher: Array) -> Array:
    values = []
    for s, t in zip(student, teacher, strict=True):
        p, q = probabilities(s), probabilities(t)
        middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
        values.append(1 - (divergence(p, middle) + divergence(q, middle)) / 2)
    return np.array(values)


def disagreement(student: Array, teacher: Array) -> Array:
    return np.array(
        [
            0
            if np.argmax(s.real) == np.argmax(t.real)
            else -divergence(*map(probabilities, (t, s)))
            for s, t in zip(student, teacher, strict=True)
        ],
        dtype=np.complex128,
    )


def diversity(z: Array, x: Array) -> complex:
    pairs = [(i, j) for i in range(len(z)) for j in range(len(z))]
    total = sum(
        sum((z[i] - z[j]) ** 2)
        / z.shape[1]
        * sum(map(absolute, (x[i] - x[j]).flatten()))
        / x[i].size
        for i, j in pairs
        if i != j
    )
    return cmath.exp(-total / len(pairs))


def hard_cross_entropy(teacher: Array, y: list[int]) -> list[float]:
    found = [probabilities(row)[label].real for row, label in zip(teacher, y, strict=True)]
    return [-(1 - p) * math.log(p) for p in found]
