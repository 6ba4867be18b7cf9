"""Distillation-based semi-supervised federated learning."""

import torch
from pydantic import Field

from fedkd.config import Frozen, Optimisation
from fedkd.exchange.aggregation import entropy_reduction
from fedkd.exchange.codec import Expected, half
from fedkd.exchange.messages import Broadcast, Tensors, Upload, Value
from fedkd.knowledge import label
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.methods.core.label_loss import LabelLoss, label_loss
from fedkd.specs import TensorSpec
from fedkd.tasks.likelihoods.tokens import spoken


class DSFLParams(Frozen):
    """DS-FL's own parameters."""

    public_per_round: int = Field(default=1000, ge=1)
    """Proxy samples used in a round, drawn anew each round."""
    temperature: float = Field(default=0.1, gt=0)
    """ERA's temperature; the lower, the sharper the aggregate."""
    digest: Optimisation = Optimisation(epochs=5)
    """How a client fits its teacher to the aggregate before it returns to its private data."""
    student: Optimisation = Optimisation(epochs=5)
    """How the server distils the aggregate into the student."""
    loss: LabelLoss = "soft-labels"
    """By which form of knowledge the student learns; what compares logits gets the aggregate's
    logarithms, at temperature 1."""


class DSFL(Method):
    """Clients send probabilities and learn from their sharpened mean.

    Itahara et al. 2021, arXiv:2008.06180.
    """

    card = Card(
        paper="Itahara et al. 2021, arXiv:2008.06180",
        sends="class probabilities on the proxy set",
        needs="a proxy set",
        returns="the mean of all probabilities, sharpened (ERA)",
        asks=("categorical",),
        needs_public=True,
        privileged=True,
        aligns=True,
        client_units=True,
    )
    Params = DSFLParams
    params: DSFLParams

    def expects(self, setting: Setting, client: int) -> Expected:
        size = len(setting.proxy_subset(self.params.public_per_round, round=1))
        shape = (size, *setting.task.answer)
        return {"probabilities": TensorSpec(shape, torch.float16, low=0, high=1)}

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        if "aggregate" in broadcast:  # the last round's, so it stands on the last round's subset
            inputs = ctx.setting.proxy_inputs(self.params.public_per_round, ctx.round - 1)
            targets = broadcast["aggregate"].float()
            ctx.distil(inputs, targets, label.soft_cross_entropy, self.params.digest)
        ctx.train()
        logits = ctx.answer(ctx.setting.proxy_inputs(self.params.public_per_round, ctx.round))
        # At a text's padding a model says nothing, and an even distribution would be something.
        probabilities = torch.where(spoken(logits)[..., None], torch.softmax(logits, dim=-1), 0.0)
        return Upload({"probabilities": Value(half(probabilities), ctx.from_teacher)})

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        stacked = torch.stack([upload["probabilities"] for upload in uploads.values()])
        aggregate = entropy_reduction(ctx.protect(stacked), temperature=self.params.temperature)
        inputs = ctx.setting.proxy_inputs(self.params.public_per_round, ctx.round)
        if self.params.loss == "soft-labels":
            ctx.distil(inputs, aggregate, label.soft_cross_entropy, self.params.student)
        else:
            logs = aggregate.clamp_min(torch.finfo(aggregate.dtype).tiny).log()
            logits = torch.where(spoken(aggregate)[..., None], logs, 0.0)
            likelihood = ctx.setting.task.likelihood
            loss = label_loss(self.params.loss, temperature=1.0, likelihood=likelihood)
            ctx.distil(inputs, logits, loss, self.params.student)
        return Broadcast(common={"aggregate": half(aggregate)})
