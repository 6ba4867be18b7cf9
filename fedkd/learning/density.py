"""How much denser a party's own records are than nothing in particular, at any place.

KuLSIF, kernel unconstrained least-squares importance fitting: Kanamori, Suzuki & Sugiyama 2012,
Machine Learning 86.
"""

import torch
from torch import Tensor


def ratio(own: Tensor, noise: Tensor, places: Tensor, *, width: float, penalty: float) -> Tensor:
    """The density of `own` records over that of `noise`, at `places`.

    It is the function r, of the space of a Gaussian kernel of `width`, that minimises
    mean of r^2 over noise / 2 - mean of r over own + `penalty` ||r||^2 / 2, in closed form. (The
    published code of arXiv:2304.01731 multiplies by the matrix where the form has its inverse.)

    Args:
        own: M >= 1 records (M, F).
        noise: L >= 1 draws of what they are compared with (L, F).
        places: (N, F).
        width: of the kernel, > 0: exp(-|a - b|^2 / (2 width^2)).
        penalty: > 0.

    Returns:
        (N,), float64; an estimate, which may be below 0.
    """
    own, noise, places = own.double(), noise.double(), places.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        likeness: Tensor = (-torch.cdist(a, b).square() / (2 * width**2)).exp()
        return likeness

    count = len(noise)
    matrix = kernel(noise, noise) / count + penalty * torch.eye(count, dtype=torch.float64)
    near = kernel(noise, own).mean(dim=1)
    weights: Tensor = torch.linalg.solve(matrix, near) / (count * penalty)
    return kernel(places, own).mean(dim=1) / penalty - kernel(places, noise) @ weights
