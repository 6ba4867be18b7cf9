"""What methods that average models share: handing out, learning from what came, averaging."""

import torch
from torch import Tensor

from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Broadcast, Tensors, Upload, Value, group, prefixed
from fedkd.methods.core.client_context import ClientContext
from fedkd.methods.core.server_context import ServerContext, Uploads
from fedkd.methods.core.sums import mean_of_parts, part_of_mean
from fedkd.specs import TensorSpec


def hand_out(ctx: ServerContext) -> Broadcast:
    """The student, to all clients."""
    student = ctx.setting.experiment.student.model
    state = ctx.setting.student.sent(student, ctx.student.state_dict())
    return Broadcast(common=prefixed("model", state))


def receive(ctx: ClientContext, broadcast: Tensors) -> Tensors:
    """The state dict that the teacher has with what the server handed out, in every round."""
    ctx.keeps_teacher = False
    return start_from(ctx, ctx.setting.sent(ctx.spec, group("model", broadcast)))


def start_from(ctx: ClientContext, given: Tensors) -> dict[str, Tensor]:
    """Put tensors by name into the teacher, whose others stay; the state dict that it then has.

    It shares no memory with the teacher.
    """
    # Where all is given, nothing of a teacher is drawn or read first.
    if not ctx.has_teacher and (model := ctx.setting.models.holding(given, ctx.spec)) is not None:
        ctx.teacher = model
        return {name: given[name] for name in model.state_dict()}
    state = ctx.teacher.state_dict()
    start = {name: given[name] if name in given else each.clone() for name, each in state.items()}
    ctx.teacher.load_state_dict(start)
    return start


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
    counts = weights.tolist()
    if ctx.running is None:
        given = [group("model", upload) for upload in uploads.values()]
        average = ctx.average(uploads, given, counts)
    else:
        average = ctx.running.mean(dict(zip(uploads, counts, strict=True)))
    ctx.student.load_state_dict({**ctx.student.state_dict(), **average})


def with_count(ctx: ClientContext, model: Upload) -> Upload:
    """A model and its example count; where the server sees sums alone, their part of one."""
    count = ctx.example_count()
    if ctx.setting.securely:
        return model_in_sum(model, count)
    return model.with_values({"count": count})


def average_by_count(ctx: ServerContext, uploads: Uploads) -> None:
    """Make the student the mean of what clients sent by `with_count`."""
    if ctx.summed:
        sum_into_student(ctx, uploads)
    else:
        average_into_student(ctx, uploads, ctx.counts(uploads, "count"))


def model_in_sum(model: Upload, count: Value) -> Upload:
    """A client's part of the mean of models by count, where the server sees sums alone.

    Counters of batches, which are no numbers to average, stay at the client.
    """
    parts = {
        name: Value(part_of_mean(value.data, count.data), value.provenance)
        for name, value in model.values.items()
        if value.data.is_floating_point()
    }
    return Upload({**parts, "count": count})


def expected_in_sum(model_and_count: Expected) -> Expected:
    """What `model_in_sum` makes of what would look like this."""
    floating = {n: spec for n, spec in model_and_count.items() if spec.dtype.is_floating_point}
    parts = {name: TensorSpec(spec.shape, torch.float64) for name, spec in floating.items()}
    return {**parts, "count": model_and_count["count"]}


def sum_into_student(ctx: ServerContext, uploads: Uploads) -> None:
    """Make the student the mean that the one upload, a sum of `model_in_sum`, stands for.

    Counts are as clients claim them: of a sum nobody can tell who claimed how much.
    """
    [sums] = uploads.values()
    parts = group("model", sums)
    average = {name: mean_of_parts(part, sums["count"]) for name, part in parts.items()}
    ctx.student.load_state_dict({**ctx.student.state_dict(), **average})
