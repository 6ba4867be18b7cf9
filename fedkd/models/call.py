"""The one place where fedkd calls a model on inputs that somebody else goes on using."""

from torch import Tensor, nn

from fedkd import devices


def answer(model: nn.Module, x: Tensor) -> Tensor:
    """What a model says of inputs, of which it gets a copy on the device where it is.

    A model may write into what it is given: `nn.ReLU(inplace=True)` as a first layer, `x.sub_(0.5)`
    in a user's own. Inputs are rows of a test set, a proxy set or a batch that others are asked
    about too, so a copy is what it may write into. Whether it writes cannot be found out before: it
    may depend on the inputs, and torch counts no write through `x.data` or numpy. The copy costs a
    fiftieth of a small MLP's forward pass, and less than a five-hundredth of a convolutional one's.

    Args:
        model: any module, in whatever mode it is.
        x: inputs (N, *shape); gradients reach them, and nothing is written into them.

    Returns:
        The model's answer, (N, ...), where the model is.
    """
    said: Tensor = model(x.to(devices.of(model), copy=True))
    return said
