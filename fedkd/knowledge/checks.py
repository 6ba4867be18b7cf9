"""What the losses ask of their inputs."""

from collections.abc import Mapping

from torch import Tensor


def same_shape(**tensors: Tensor) -> None:
    """Raise `ValueError`, naming every shape, unless all shapes are equal."""
    if len({tuple(tensor.shape) for tensor in tensors.values()}) > 1:
        raise ValueError(f"shapes differ: {listed(tensors)}; expected the same shape")


def same_batch(**tensors: Tensor) -> None:
    """Raise `ValueError`, naming every shape, unless all are (N, ...) with features and one N."""
    if min(tensor.dim() for tensor in tensors.values()) < 2:
        raise ValueError(f"expected features (N, ...): found {listed(tensors)}")
    if len({len(tensor) for tensor in tensors.values()}) > 1:
        raise ValueError(f"batches differ: {listed(tensors)}; expected the same N")


def same_places(**tensors: Tensor) -> None:
    """Raise `ValueError`, naming every shape, unless all are (N, C, H, W) with one N, H and W."""
    if {tensor.dim() for tensor in tensors.values()} != {4}:
        raise ValueError(f"expected feature maps (N, C, H, W): found {listed(tensors)}")
    if len({(len(tensor), *tensor.shape[2:]) for tensor in tensors.values()}) > 1:
        raise ValueError(f"maps differ: {listed(tensors)}; expected the same N, H and W")


def has_shape(expected: tuple[int, ...], /, **tensors: Tensor) -> None:
    """Raise `ValueError`, naming the first tensor whose shape is not `expected`."""
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != expected:
            raise ValueError(f"{name} {tuple(tensor.shape)}: expected {expected}")


def positive(**values: float) -> None:
    """Raise `ValueError`, naming the first value that is not above 0."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"expected {name}={value} > 0")


def listed(tensors: Mapping[str, Tensor]) -> str:
    """Tensors' names and shapes, for an error."""
    return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
