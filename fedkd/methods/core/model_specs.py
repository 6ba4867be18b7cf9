"""What messages have of a model, by name and shape."""

import math

from torch import nn

from fedkd.config import ModelSpec
from fedkd.errors import ConfigError
from fedkd.exchange.codec import DTYPES, Expected
from fedkd.exchange.messages import prefixed
from fedkd.models import weights
from fedkd.specs import TensorSpec


def specs_of(spec: ModelSpec, model: nn.Module) -> Expected:
    """What a fresh model's state dict looks like under `model/`, without what is `weights.fixed`.

    Raises:
        ConfigError: it holds tensors of a type that no message has.
    """
    still = weights.fixed(spec, model)
    state = {name: each for name, each in model.state_dict().items() if name not in still}
    if unknown := {str(t.dtype) for t in state.values()} - {str(d) for d in DTYPES}:
        raise ConfigError(
            f"model {str(spec)!r} holds tensors of {', '.join(sorted(unknown))}: expected "
            f"{', '.join(str(dtype) for dtype in DTYPES)}"
        )
    # A negative variance would turn every answer of the model into NaN.
    return {
        name: TensorSpec.of(t, low=0 if name.endswith(".running_var") else -math.inf)
        for name, t in prefixed("model", state).items()
    }
