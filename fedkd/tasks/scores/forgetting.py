"""What a matrix of scores, stage by stage, tells of learning one thing after another.

Row k, column j of a matrix (T, T): the score on stage j after stage k has been learned, None where
it is not defined. Figures are None where nothing defines them.
"""

from collections.abc import Sequence

from fedkd.tasks.base import Figures, mean_of

Matrix = Sequence[Sequence[float | None]]


def average(matrix: Matrix) -> float | None:
    """The mean score over all stages after the last: ACC of arXiv:1706.08840."""
    return mean_of(matrix[-1])


def forgetting(matrix: Matrix, score: Figures) -> float | None:
    """How far each stage's score has fallen since its best, a mean over all stages but the last.

    Chaudhry et al. 2018, arXiv:1801.10112. Below 0 where scores have only risen.
    """
    *before, last = matrix
    fallen = (
        score.gain(score.best(row[stage] for row in before), last[stage])
        for stage in range(len(before))
    )
    return mean_of(list(fallen))


def backward_transfer(matrix: Matrix, score: Figures) -> float | None:
    """By how much the last stage has left earlier ones better than when they had been learned.

    BWT of Lopez-Paz & Ranzato 2017, arXiv:1706.08840; a mean over all stages but the last, below 0
    where they were forgotten.
    """
    last = len(matrix) - 1
    return mean_of([score.gain(matrix[last][j], matrix[j][j]) for j in range(last)])


def forward_transfer(
    matrix: Matrix, untrained: Sequence[float | None], score: Figures
) -> float | None:
    """By how much a stage is better known just before it is learned than to an untrained model.

    FWT of Lopez-Paz & Ranzato 2017, arXiv:1706.08840; a mean over all stages but the first.

    Args:
        matrix: see the module.
        untrained: T scores of the model as it began.
        score: says which is better.
    """
    return mean_of([score.gain(matrix[j - 1][j], untrained[j]) for j in range(1, len(matrix))])
