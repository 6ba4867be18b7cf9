"""The feature losses as their formulas say, in slow loops (see agreement.py)."""

import cmath

import numpy as np
from agreement import Array
from loss_oracles import absolute, norm


def mix(features: Array, weight: Array) -> Array:
    """Channels mixed by `weight` (C, C'), place by place: a convolution of size 1."""
    mixed = np.zeros((len(features), weight.shape[1], *features.shape[2:]), dtype=np.complex128)
    for n, c, *place in np.ndindex(mixed.shape):
        channels = features[(n, slice(None), *place)]
        mixed[(n, c, *place)] = sum(a * b for a, b in zip(channels, weight[:, c], strict=True))
    return mixed


def hint(student: Array, teacher: Array, weight: Array) -> Array:
    gaps = mix(student, weight) - teacher
    return np.array([sum(v * v for v in gap.flatten()) / gap.size for gap in gaps])


def angular(student: Array, teacher: Array) -> Array:
    values = []
    for s, t in zip(student, teacher, strict=True):
        a, b = s.flatten(), t.flatten()
        values.append((1 - sum(a * b) / (norm(a) * norm(b))) ** 2)
    return np.array(values)


def attention(student: Array, teacher: Array, power: float) -> Array:
    values = []
    for s, t in zip(student, teacher, strict=True):
        a, b = _attention_map(s, power), _attention_map(t, power)
        values.append(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / len(a))
    return np.array(values)


def _attention_map(maps: Array, power: float) -> Array:
    channels, height, width = maps.shape
    found = np.array(
        [
            sum(absolute(maps[c, i, j]) ** power for c in range(channels)) / channels
            for i in range(height)
            for j in range(width)
        ]
    )
    return found / norm(found)


def selectivity(student: Array, teacher: Array) -> Array:
    values = []
    for s, t in zip(student, teacher, strict=True):
        a = [each.flatten() / norm(each) for each in s]
        b = [each.flatten() / norm(each) for each in t]
        values.append(_mean_kernel(a, a) + _mean_kernel(b, b) - 2 * _mean_kernel(a, b))
    return np.array(values)


def _mean_kernel(a: list[Array], b: list[Array]) -> complex:
    kernels = [sum(p * q for p, q in zip(x, y, strict=True)) ** 2 for x in a for y in b]
    return sum(kernels) / len(kernels)


def factor(student: Array, teacher: Array) -> Array:
    values = []
    for s, t in zip(student, teacher, strict=True):
        gap = (s / norm(s) - t / norm(t)).flatten()
        values.append(sum(absolute(v) for v in gap) / len(gap))
    return np.array(values)


def boundary(student: Array, teacher: Array, margin: float) -> Array:
    values = []
    for s, t in zip(student, teacher, strict=True):
        value = 0j
        for a, b in zip(s.flatten(), t.flatten(), strict=True):
            if b.real > 0 and a.real < margin:
                value += (a - margin) ** 2
            if b.real <= 0 and a.real > -margin:
                value += (a + margin) ** 2
        values.append(value)
    return np.array(values)


def vid(student: Array, teacher: Array, weight: Array, raw: Array) -> Array:
    means = mix(student, weight)
    values = []
    for m, t in zip(means, teacher, strict=True):
        value = 0j
        for index in np.ndindex(t.shape):
            variance = cmath.log(1 + cmath.exp(raw[index[0]])) + 1e-5
            value += 0.5 * ((t[index] - m[index]) ** 2 / variance + cmath.log(variance))
        values.append(value / t.size)
    return np.array(values)
