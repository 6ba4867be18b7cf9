"""The graph and parameter losses as their formulas say, in slow loops (see agreement.py)."""

import cmath

import numpy as np
from agreement import Array
from loss_oracles import probabilities
from relation_oracles import relative_distances


def nodes(student: Array, teacher: Array) -> Array:
    pairs = zip(student, teacher, strict=True)
    return np.array([sum(v * v for v in (s - t).flatten()) / s.size for s, t in pairs])


def batch_edges(features: Array) -> Array:
    return np.array(relative_distances(features, power=2))


def edges(student: Array, teacher: Array, graph: Array) -> Array:
    values = []
    for i, row in enumerate(graph):
        gaps = [row[j] * (student[i, j] - teacher[i, j]) ** 2 for j in range(len(row))]
        values.append(sum(gaps) / sum(row))
    return np.array(values)


def layers(student: list[Array], teacher: list[Array], graph: Array) -> Array:
    pairs = zip(student, teacher, strict=True)
    return np.array([edges(batch_edges(s), batch_edges(t), graph) for s, t in pairs])


def transitions(student: list[Array], teacher: list[Array], graph: Array) -> Array:
    s, t = ([batch_edges(each) for each in model] for model in (student, teacher))
    return np.array(
        [edges(s[k + 1] - s[k], t[k + 1] - t[k], graph) for k in range(len(student) - 1)]
    )


def neighbours(student: Array, teacher: Array, graph: list[list[int]]) -> Array:
    s, t = batch_edges(student), batch_edges(teacher)
    values = []
    for i, row in enumerate(graph):
        linked = [j for j, weight in enumerate(row) if weight]
        p, q = ([cmath.exp(-side[i, j] / 2) for j in linked] for side in (s, t))
        p, q = ([value / sum(side) for value in side] for side in (p, q))
        values.append(sum(a * cmath.log(a / b) for a, b in zip(p, q, strict=True)))
    return np.array(values, dtype=np.complex128)


def consistency(student: Array, teacher: Array) -> Array:
    values = []
    for s, t in zip(student, teacher, strict=True):
        pairs = zip(probabilities(s), probabilities(t), strict=True)
        values.append(sum((p - q) ** 2 for p, q in pairs) / len(s))
    return np.array(values)
