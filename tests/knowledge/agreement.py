"""Does a loss agree with an oracle, in value and in the gradient of every input?

Oracles compute with complex numbers, because the imaginary part of f(x + ih) / h is the derivative
without cancellation, so that gradients can be compared as exactly as values (the "complex step").
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.complex128]
Oracle = Callable[..., Array | complex]
Loss = Callable[..., Tensor]
Shapes = list[tuple[int, ...]]


def gradients(oracle: Oracle, arguments: list[Array]) -> list[NDArray[np.float64]]:
    """The gradient of the sum of `oracle`'s values in every argument."""
    step = 1e-30
    found = []
    for number, argument in enumerate(arguments):
        gradient = np.zeros(argument.shape)
        for index in np.ndindex(argument.shape):
            moved = [each.copy() for each in arguments]
            moved[number][index] += 1j * step
            gradient[index] = np.sum(oracle(*moved)).imag / step
        found.append(gradient)
    return found


def fresh(shapes: Shapes, seed: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Random tensors; the same numbers, exactly, in single and in double precision."""
    generator = torch.Generator().manual_seed(seed)
    tensors = [2 * torch.randn(shape, generator=generator) for shape in shapes]
    return [tensor.to(dtype).requires_grad_() for tensor in tensors]


def rotation(size: int, seed: int) -> Tensor:
    """A random orthogonal matrix."""
    (square,) = fresh([(size, size)], seed)
    orthogonal: Tensor = torch.linalg.qr(square.detach()).Q
    return orthogonal


def assert_agrees(loss: Loss, oracle: Oracle, shapes: Shapes, seed: int) -> None:
    arrays = [each.detach().numpy().astype(np.complex128) for each in fresh(shapes, seed)]
    expected = np.asarray(oracle(*arrays)).real
    slopes = gradients(oracle, arrays)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        tensors = fresh(shapes, seed, dtype)
        value = loss(*tensors)
        assert value.shape == expected.shape
        assert value.dtype == dtype
        _assert_close(value.detach().numpy(), expected, tolerance)
        found = torch.autograd.grad(value.sum(), tensors, materialize_grads=True)
        for one, slope in zip(found, slopes, strict=True):
            _assert_close(one.numpy(), slope, tolerance)


def _assert_close(found: NDArray[np.floating], expected: NDArray[np.float64], tol: float) -> None:
    """To `tol` of the largest entry or of 1: small entries of large ones are their differences."""
    np.testing.assert_allclose(found, expected, rtol=tol, atol=tol * max(1, abs(expected).max()))
