"""What the losses ask of their inputs."""

from torch import Tensor


def same_shape(**tensors: Tensor) -> None:
    """Raise `ValueError`, naming every shape, unless all shapes are equal."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"shapes differ: {found}; expected the same shape")
