"""Federated distillation by consensus logits."""

import torch
from pydantic import Field

from fedkd.config import Frozen, Optimisation
from fedkd.exchange.aggregation import mean
from fedkd.exchange.codec import Expected, half
from fedkd.exchange.messages import Broadcast, Tensors, Upload, Value
from fedkd.knowledge import label
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.methods.core.label_loss import LabelLoss, label_loss
from fedkd.specs import TensorSpec


class FedMDParams(Frozen):
    """FedMD's own parameters."""

    public_per_round: int | None = Field(default=None, ge=1)
    """Proxy samples used in a round, drawn anew each round; all of them unless given."""
    digest: Optimisation = Optimisation(epochs=1, batch_size=256)
    """How a client fits its teacher to the consensus before it returns to its private data."""
    student: Optimisation = Optimisation(epochs=10)
    """How the server distils the consensus into the student."""
    temperature: float = Field(default=1.0, gt=0)
    """The student's distillation temperature."""
    loss: LabelLoss = "kd"
    """By which form of knowledge the student learns: see docs/knowledge.md."""


class FedMD(Method):
    """Clients send logits on the proxy set and learn from their mean.

    Li & Wang 2019, arXiv:1910.03581.

    The paper ends with the clients' models; the global student, distilled from the consensus by the
    server, is ours, as is sending logits in float16. The paper's first training on labelled public
    data is left out: the proxy set here has no labels.
    """

    card = Card(
        paper="Li & Wang 2019, arXiv:1910.03581",
        sends="logits on the proxy set",
        needs="a proxy set",
        returns="the mean of all logits",
        needs_public=True,
        privileged=True,
    )
    Params = FedMDParams
    params: FedMDParams

    def expects(self, setting: Setting, client: int) -> Expected:
        size = len(setting.proxy_subset(self.params.public_per_round, round=1))
        return {"logits": TensorSpec((size, setting.classes), torch.float16)}

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        if "consensus" in broadcast:  # the last round's, so it stands on the last round's subset
            inputs = ctx.setting.proxy_inputs(self.params.public_per_round, ctx.round - 1)
            ctx.distil(inputs, broadcast["consensus"].float(), label.mae, self.params.digest)
        ctx.train()
        logits = ctx.answer(ctx.setting.proxy_inputs(self.params.public_per_round, ctx.round))
        return Upload({"logits": Value(half(logits), ctx.from_teacher)})

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        consensus = mean(torch.stack([upload["logits"] for upload in uploads.values()]))
        inputs = ctx.setting.proxy_inputs(self.params.public_per_round, ctx.round)
        loss = label_loss(self.params.loss, temperature=self.params.temperature)
        ctx.distil(inputs, consensus, loss, self.params.student)
        return Broadcast(common={"consensus": half(consensus)})
