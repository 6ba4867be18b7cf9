"""Numbers, each with a Gaussian of one fixed width around the model's answer."""

from collections.abc import Sequence

from torch import Tensor

from fedkd.tasks.base import Likelihood


def gaussian(limits: Sequence[tuple[float, float]]) -> Likelihood:
    """The likelihood of D numbers y, float (N, D), given answers (N, D) in scaled units.

    A number is scaled as (y - middle) / half its limits' width. The Gaussian's standard deviation
    is 1 there, so that `nll` is half the squared error, a mean over numbers, up to its constant.
    `divergence` is KL(teacher || student) of answers divided by T, times T^2: half the squared
    difference, whatever T is. `decide` gives the numbers' own units.

    Args:
        limits: of each number, what becomes -1 and 1.
    """
    middles = [(low + high) / 2 for low, high in limits]
    halves = [(high - low) / 2 for low, high in limits]

    def scaled(targets: Tensor) -> Tensor:
        return (targets - targets.new_tensor(middles)) / targets.new_tensor(halves)

    def nll(answers: Tensor, targets: Tensor) -> Tensor:
        return _half_squares(answers, scaled(targets)).mean(dim=-1)

    def mean_nll(answers: Tensor, targets: Tensor) -> Tensor:
        return _half_squares(answers, scaled(targets)).mean()

    def divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        softened = _half_squares(student / temperature, teacher / temperature)
        return temperature**2 * softened.mean(dim=-1)

    def decide(answers: Tensor) -> Tensor:
        return answers * answers.new_tensor(halves) + answers.new_tensor(middles)

    return Likelihood(nll, mean_nll, divergence, decide)


def _half_squares(left: Tensor, right: Tensor) -> Tensor:
    """(N, D) and (N, D) -> (N, D)."""
    return (left - right).square() / 2
