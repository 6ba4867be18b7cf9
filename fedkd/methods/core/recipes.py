"""What methods that average models share: handing out, learning from what came, averaging."""

from torch import Tensor

from fedkd.exchange.messages import Broadcast, Tensors, group, prefixed
from fedkd.methods.core.client_context import ClientContext
from fedkd.methods.core.server_context import ServerContext, Uploads
from fedkd.models import weights


def hand_out(ctx: ServerContext) -> Broadcast:
    """The student, to all clients."""
    student = ctx.setting.experiment.student.model
    state = ctx.setting.student.sent(student, ctx.student.state_dict())
    return Broadcast(common=prefixed("model", state))


def receive(ctx: ClientContext, broadcast: Tensors) -> Tensors:
    """The state dict that the teacher has with what the server handed out."""
    own = ctx.setting.of_client(ctx.client)
    weights.complete(ctx.teacher, own.sent(ctx.spec, group("model", broadcast)))
    return {name: value.clone() for name, value in ctx.teacher.state_dict().items()}


def train_received(ctx: ClientContext, broadcast: Tensors, *, proximal: float = 0.0) -> None:
    """Train the teacher from the server's model on, as FedAvg's clients do.

    McMahan et al. 2017, arXiv:1602.05629.

    Args:
        ctx: the client's.
        broadcast: what the server handed out, under `model/`.
        proximal: the weight mu of mu/2 ||w - w_server||^2, as in FedProx, arXiv:1812.06127; 0:
            none.
    """
    ctx.train(anchor=receive(ctx, broadcast), proximal=proximal)


def average_into_student(ctx: ServerContext, uploads: Uploads, weights: Tensor) -> None:
    """Make the student the clients' average, by weights (K,) at least 0, in the uploads' order.

    What clients do not send of it stays.
    """
    models = [group("model", upload) for upload in uploads.values()]
    average = ctx.average(uploads, models, weights.tolist())
    ctx.student.load_state_dict({**ctx.student.state_dict(), **average})
