"""The label losses beyond KD as their formulas say, in slow loops (see agreement.py)."""

import numpy as np
from agreement import Array
from loss_oracles import divergence, norm, probabilities


def jsd(student: Array, teacher: Array, temperature: float, beta: float = 0.5) -> Array:
    values = []
    for s, t in zip(student, teacher, strict=True):
        q, p = probabilities(s, temperature), probabilities(t, temperature)
        middle = [beta * a + (1 - beta) * b for a, b in zip(p, q, strict=True)]
        total = beta * divergence(p, middle) + (1 - beta) * divergence(q, middle)
        values.append(temperature**2 * total)
    return np.array(values)


def skewed(one: Array, other: Array, temperature: float, alpha: float) -> Array:
    """KL(other || (1 - alpha) one + alpha other)."""
    values = []
    for a, b in zip(one, other, strict=True):
        p, q = probabilities(a, temperature), probabilities(b, temperature)
        mixed = [(1 - alpha) * x + alpha * y for x, y in zip(p, q, strict=True)]
        values.append(temperature**2 * divergence(q, mixed))
    return np.array(values)


def top_k(student: Array, teacher: Array, temperature: float, k: int) -> Array:
    values = []
    for s, t in zip(student, teacher, strict=True):
        p, q = probabilities(t, temperature), probabilities(s, temperature)
        best = sorted(range(len(p)), key=lambda c: -p[c].real)[:k]
        named = [[each[c] for c in best] for each in (p, q)]
        values.append(temperature**2 * divergence(*([*n, 1 - sum(n)] for n in named)))
    return np.array(values)


def dkd(
    student: Array, teacher: Array, target: list[int], temperature: float, alpha: float, beta: float
) -> Array:
    values = []
    for s, t, y in zip(student, teacher, target, strict=True):
        p, q = probabilities(t, temperature), probabilities(s, temperature)
        target_part = divergence([p[y], 1 - p[y]], [q[y], 1 - q[y]])
        other_p = [value / (1 - p[y]) for c, value in enumerate(p) if c != y]
        other_q = [value / (1 - q[y]) for c, value in enumerate(q) if c != y]
        other_part = divergence(other_p, other_q)
        values.append(temperature**2 * (alpha * target_part + beta * other_part))
    return np.array(values)


def pearson_distance(student: Array, teacher: Array) -> Array:
    values = []
    for s, t in zip(student, teacher, strict=True):
        a, b = s - sum(s) / len(s), t - sum(t) / len(t)
        values.append(1 - sum(x * y for x, y in zip(a, b, strict=True)) / (norm(a) * norm(b)))
    return np.array(values)


def inter_class(student: Array, teacher: Array, temperature: float) -> Array:
    s = np.array([probabilities(row, temperature) for row in student])
    t = np.array([probabilities(row, temperature) for row in teacher])
    return temperature**2 * pearson_distance(s, t)


def intra_class(student: Array, teacher: Array, temperature: float) -> Array:
    s = np.array([probabilities(row, temperature) for row in student])
    t = np.array([probabilities(row, temperature) for row in teacher])
    return temperature**2 * pearson_distance(s.T, t.T)
