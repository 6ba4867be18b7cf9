"""What a client keeps of earlier stages: a few of its own records, chosen by herding.

They stay with the client, whose state says by number which of its rows they are.
"""

from torch import nn

from fedkd.data.types import Samples, joined
from fedkd.exchange.messages import group
from fedkd.learning.herding import chosen
from fedkd.methods.core.client_context import ClientContext

_KEPT = "exemplars"


def reminded(ctx: ClientContext, model: nn.Module, most: int) -> Samples:
    """The stage's records, and after them those that are kept of the stages before.

    Args:
        ctx: the client's.
        model: by whose features new ones are chosen, such as the server's as the last stage left
            it.
        most: how many are kept in all, as many of each class.

    Raises:
        UnpaidError: records are protected.
    """
    data, earlier, stages = ctx.data, ctx.earlier, ctx.setting.stages
    if earlier is None or stages is None:
        return data
    kept = group(_KEPT, ctx.state)
    for stage in range(stages.at(ctx.round)):
        if not any(name.startswith(f"{stage}.") for name in kept):
            rows = chosen(model, earlier.of_stage(stage), ctx.setting.task.targets, most)
            kept |= {f"{stage}.{label}": each for label, each in rows.items()}
    share = most // max(1, len(kept))
    # In one order, since a state is read back in any.
    kept = {name: kept[name][:share].clone() for name in sorted(kept)}
    ctx.keep(_KEPT, kept)
    parts = [
        earlier.of_stage(int(name.partition(".")[0])).subset(rows) for name, rows in kept.items()
    ]
    return joined(data, *parts)
