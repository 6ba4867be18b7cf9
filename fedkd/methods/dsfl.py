"""Distillation-based semi-supervised federated learning."""

from collections.abc import Callable, Mapping

import torch
from pydantic import Field
from torch import Tensor

from fedkd.config import Frozen, Optimisation
from fedkd.exchange import likeliest
from fedkd.exchange.aggregation import entropy_reduction, mean
from fedkd.exchange.codec import Expected, half
from fedkd.exchange.coding.fields import AnswerField
from fedkd.exchange.messages import Broadcast, Tensors, Upload, Value
from fedkd.knowledge import label
from fedkd.knowledge.places import spoken
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.methods.core.label_loss import LabelLoss, label_loss
from fedkd.methods.core.top import Top, check_top
from fedkd.rows import Rows
from fedkd.specs import TensorSpec
from fedkd.tasks.bounded import OF_PROBABILITIES


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
    top: Top = None
    """How many of the likeliest classes of each place are sent, all others as one: for answers over
    large vocabularies. All classes unless given."""


class DSFL(Method):
    """Clients send probabilities and learn from their sharpened mean.

    Itahara et al. 2021, arXiv:2008.06180.

    With `top` each client's answer is its likeliest classes and what is left, evenly over all
    others. Of such answers the mean is sharpened as of any; the aggregate goes back cut likewise,
    and the student learns from the whole one.
    """

    card = Card(
        paper="Itahara et al. 2021, arXiv:2008.06180",
        sends="class probabilities on the proxy set (by top the likeliest)",
        needs="a proxy set",
        returns="the mean of all probabilities, sharpened (ERA)",
        asks=("categorical",),
        needs_public=True,
        privileged=True,
        aligns=True,
        client_units=True,
        asynchronous="answers",
        announces=True,
        combines=("answers",),
    )
    Params = DSFLParams
    params: DSFLParams

    def check(self, setting: Setting) -> None:
        check_top(self.params.top, setting.task)

    def expects(self, setting: Setting, client: int) -> Expected:
        size = len(setting.proxy_subset(self.params.public_per_round, round=1))
        shape = (size, *setting.task.answer)
        if self.params.top is not None:
            return likeliest.expected("probabilities", shape, self.params.top)
        return {"probabilities": TensorSpec(shape, torch.float16, low=0, high=1)}

    def answers(self, setting: Setting) -> Mapping[str, AnswerField]:
        if self.params.top is not None:
            return {}
        spec = self.expects(setting, 0)["probabilities"]
        answer = AnswerField(spec, lasting=spec.shape[0] == len(setting.proxy))
        return {"probabilities": answer, "aggregate": answer}

    def said(self, ctx: ServerContext, uploads: Uploads, inputs: Callable[[], Rows]) -> Tensor:
        return _logits(_answers(uploads, ctx.setting).float())

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        if any(
            name.startswith("aggregate") for name in broadcast
        ):  # the last round's, so it stands on the last round's subset
            inputs = ctx.setting.proxy_inputs(self.params.public_per_round, ctx.round - 1)
            targets = _received("aggregate", broadcast, ctx.setting).float()
            ctx.distil(inputs, targets, label.soft_cross_entropy, self.params.digest)
        ctx.train()
        logits = ctx.answer(ctx.setting.proxy_inputs(self.params.public_per_round, ctx.round))
        sent = _sent("probabilities", _probabilities(logits), self.params.top)
        return Upload({name: Value(each, ctx.from_teacher) for name, each in sent.items()})

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        answers = ctx.protect(_answers(uploads, ctx.setting))
        agreed = ctx.combine(uploads, answers, mean, OF_PROBABILITIES)
        aggregate = entropy_reduction(agreed[None], temperature=self.params.temperature)
        sent = _sent("aggregate", aggregate, self.params.top)
        broadcast = ctx.announce(Broadcast(common=sent))
        inputs = ctx.setting.proxy_inputs(self.params.public_per_round, ctx.round)
        if self.params.loss == "soft-labels":
            ctx.distil(inputs, aggregate, label.soft_cross_entropy, self.params.student)
        else:
            likelihood = ctx.setting.task.likelihood
            loss = label_loss(self.params.loss, temperature=1.0, likelihood=likelihood)
            ctx.distil(inputs, _logits(aggregate), loss, self.params.student)
        return broadcast


def _answers(uploads: Uploads, setting: Setting) -> Tensor:
    """All clients' probabilities, (K, N, *S, C)."""
    return torch.stack([_received("probabilities", each, setting) for each in uploads.values()])


def _probabilities(logits: Tensor) -> Tensor:
    """(..., C), all 0 at a text's padding: an even distribution would be something to say."""
    return torch.where(spoken(logits)[..., None], torch.softmax(logits, dim=-1), 0.0)


def _logits(probabilities: Tensor) -> Tensor:
    """The logarithms of (..., C), all 0 where nothing is said."""
    logs = probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()
    return torch.where(spoken(probabilities)[..., None], logs, 0.0)


def _sent(name: str, probabilities: Tensor, top: int | None) -> dict[str, Tensor]:
    """Probabilities as they cross the wire."""
    if top is None:
        return {name: half(probabilities)}
    return likeliest.sparse(name, _logits(probabilities), top)


def _received(name: str, sent: Tensors, setting: Setting) -> Tensor:
    """Probabilities of all classes that crossed the wire, those that were not named alike."""
    if name in sent:
        return sent[name]
    return _probabilities(likeliest.dense(name, sent, setting.task.classes))
