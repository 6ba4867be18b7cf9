"""Federated averaging with a contrast of models."""

from functools import partial

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from fedkd.exchange.messages import Tensors, group
from fedkd.learning.teacher_statistics import with_features
from fedkd.methods.core.base import Card, ClientContext, Setting
from fedkd.methods.fedavg import FedAvg, FedAvgParams


class MOONParams(FedAvgParams):
    """MOON's own parameters."""

    mu: float = Field(default=1.0, ge=0)
    """The weight of the contrast beside cross-entropy; 0 is FedAvg."""
    temperature: float = Field(default=0.5, gt=0)
    """What cosines are divided by."""


class MOON(FedAvg):
    """FedAvg whose clients' features stay near the server's model and away from their own last one.

    Li et al. 2021, arXiv:2103.16257. A feature is what enters the last linear layer; of the
    paper's models, with a projection head before it, that is the projection. The client keeps its
    model of its last round; in its first there is no contrast, which the paper's is constant then.
    The two models that are compared with stand still and in evaluation mode.
    """

    card = Card(
        paper="Li et al. 2021, arXiv:2103.16257",
        sends="its model and its example count",
        needs="equal models at all clients and the server, with a last linear layer",
        returns="the averaged model",
        asks=("classes",),
        unlike_models=False,
        counts=("example count",),
        summable=True,
        averages=True,
        asynchronous="models",
        combines=("models",),
        no_dp="features of a record are compared between three models, by a loss that DP-SGD does "
        "not cover",
    )
    Params = MOONParams
    params: MOONParams

    def check(self, setting: Setting) -> None:
        super().check(setting)
        setting.feature_width(setting.experiment.student.model)

    def _learn(self, ctx: ClientContext, broadcast: Tensors) -> None:
        last = group("teacher", ctx.state)
        start = self._start(ctx, broadcast)
        ctx.keeps_teacher = True
        held = [_still(ctx, state) for state in (start, last)] if last and self.params.mu else []
        loss = partial(
            contrastive_loss, held=held, mu=self.params.mu, temperature=self.params.temperature
        )
        with ctx.on_device(*held):
            ctx.fit(ctx.teacher, (ctx.data.x, ctx.data.y), loss)


def contrastive_loss(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    held: list[nn.Module],
    mu: float,
    temperature: float,
) -> Tensor:
    """Cross-entropy - mu log of the share that the first of two models has in likeness.

    Likeness is exp(cos(own features, a model's features) / temperature).

    Args:
        model: with a last linear layer, see `with_features`.
        x: inputs (N, *shape).
        y: labels (N,).
        held: the models to be like and unlike, in this order; without any: cross-entropy alone.
        mu: at least 0.
        temperature: above 0.

    Returns:
        (N,), in nats.
    """
    logits, own = with_features(model, x)
    loss = F.cross_entropy(logits, y, reduction="none")
    if not held:
        return loss
    with torch.no_grad():
        others = [with_features(each, x)[1] for each in held]
    likeness = torch.stack([F.cosine_similarity(own, each) for each in others], dim=1)
    first = torch.zeros(len(x), dtype=torch.long, device=likeness.device)
    return loss + mu * F.cross_entropy(likeness / temperature, first, reduction="none")


def _still(ctx: ClientContext, state: Tensors) -> nn.Module:
    """A model with a state dict's weights, that does not learn."""
    models, spec = ctx.setting.models, ctx.spec
    held = models.of(state, spec, purpose="specification", client=ctx.client)
    return held.eval().requires_grad_(requires_grad=False)
