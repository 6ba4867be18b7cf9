"""The last layer that unlike models share: its shape, its first weights, how a teacher takes it."""

from torch import Tensor

from fedkd.errors import ConfigError
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Tensors, group, prefixed
from fedkd.methods.core.client_context import ClientContext
from fedkd.methods.core.setting import Setting
from fedkd.models.heads import Head, head
from fedkd.specs import TensorSpec

_LARGEST = 1e4
"""The most that a weight may be: far above honest ones, and far below what would overflow."""


def check(setting: Setting) -> None:
    """Refuse clients whose last layers differ in shape.

    Raises:
        ConfigError: says the shapes of each architecture's, or that one has none.
    """
    found = {}
    for client in setting.first_clients:
        shapes = [f"{name} {tuple(each.shape)}" for name, each in _built(setting, client).items()]
        found[str(setting.experiment.client_model(client))] = ", ".join(shapes)
    if len(set(found.values())) > 1:
        each = "; ".join(f"{spec}: {shapes}" for spec, shapes in found.items())
        raise ConfigError(
            f"method {setting.experiment.method.name!r} shares the last layer, which differs in "
            f"clients.models ({each}): expected layers of one shape"
        )


def expected(setting: Setting) -> Expected:
    """What the tensors of a last layer must look like, under `head/`."""
    specs = {
        name: TensorSpec(tuple(each.shape), each.dtype, low=-_LARGEST, high=_LARGEST)
        for name, each in _built(setting, 0).items()
    }
    return {f"head/{name}": spec for name, spec in specs.items()}


def drawn(setting: Setting) -> Head:
    """The layer that all begin with, drawn from the experiment's seed as a model's own is."""
    spec = setting.experiment.client_model(0)
    return head(setting.of_client(0).build(spec, purpose="shared head"))


def sent(layer: Head) -> dict[str, Tensor]:
    """What messages have of a layer, under `head/`; it shares no memory with it."""
    return prefixed("head", {name: each.clone() for name, each in layer.state_dict().items()})


def train_from(ctx: ClientContext, broadcast: Tensors) -> None:
    """Give the teacher the shared layer, and train all of it, on a fresh optimiser.

    What the last round's optimiser knew was of another last layer.
    """
    head(ctx.teacher).load_state_dict(group("head", broadcast))
    anchor = {name: each.clone() for name, each in ctx.teacher.state_dict().items()}
    ctx.train(anchor=anchor)


def _built(setting: Setting, client: int) -> dict[str, Tensor]:
    spec = setting.experiment.client_model(client)
    model = setting.of_client(client).build(spec, purpose="specification")
    return dict(head(model).state_dict())
