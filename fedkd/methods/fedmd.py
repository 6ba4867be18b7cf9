"""Federated distillation by consensus logits."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from fedkd import rng
from fedkd.config import Frozen, Optimisation
from fedkd.config.parts import absent
from fedkd.errors import ConfigError
from fedkd.exchange import likeliest
from fedkd.exchange.aggregation import mean
from fedkd.exchange.codec import Expected, half
from fedkd.exchange.coding.fields import AnswerField
from fedkd.exchange.messages import (
    Broadcast,
    Release,
    Tensors,
    Upload,
    Value,
)
from fedkd.knowledge import label
from fedkd.learning import consensus
from fedkd.learning.familiarity import LEAST, familiarity
from fedkd.learning.offline import Loss
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.methods.core.label_loss import LabelLoss, check_loss, label_loss
from fedkd.methods.core.top import Top, check_top
from fedkd.privacy.events import Unprotected
from fedkd.rows import Rows
from fedkd.specs import TensorSpec
from fedkd.tasks import Ask, Likelihood

_LARGEST = 1e15
"""Of a number that is no logit: its square, and a sum of them, are finite in float32."""

_LOGITS = frozenset[Ask]({"categorical", "items"})
"""What a task offers whose answers are logits."""

_FAMILIARITY = TensorSpec((), torch.float64, low=LEAST, high=1)


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
    """By which form of knowledge the student learns: see docs/knowledge.md. For a task without
    classes it is `divergence` unless given."""
    top: Top = None
    """How many of the likeliest classes of each place are sent, all others as one: for answers over
    large vocabularies. All classes unless given."""
    familiar: bool = Field(default=False, exclude_if=absent)
    """Whether a client weighs as much as its own records are like the proxy set, which is one more
    number that it sends: see `fedkd.learning.familiarity`."""


class FedMD(Method):
    """Clients send their answers on the proxy set, such as logits, and learn from their mean.

    Li & Wang 2019, arXiv:1910.03581.

    The paper ends with the clients' models; the global student, distilled from the consensus by the
    server, is ours, as is sending logits in float16; numbers, which may be of any size, stay in
    float32. The paper's first training on labelled public
    data is left out: the proxy set here has no labels. Embeddings come together by their cosines,
    and clients learn these from the consensus: of models that learned apart no axis is the same.

    With `familiar` the mean is weighed, by one number a client. Selective-FD (Shao et al. 2023,
    arXiv:2304.01731) leaves records out of it that are unlike a client's own; here a client counts
    as a whole, which tells less of its records, by what both sets have in common.
    """

    card = Card(
        paper="Li & Wang 2019, arXiv:1910.03581",
        sends="logits (by top the likeliest) or numbers on the proxy set; if familiar, one number "
        "of its data",
        needs="a proxy set",
        returns="the mean of all answers, or what the task has in its place",
        needs_public=True,
        privileged=True,
        aligns=True,
        asynchronous="answers",
        announces=True,
        combines=("answers",),
    )
    Params = FedMDParams
    params: FedMDParams

    def check(self, setting: Setting) -> None:
        check_loss(self.params.loss, setting.task)
        if self.params.familiar:
            _check_familiar(setting)
        check_top(self.params.top, setting.task)

    def expects(self, setting: Setting, client: int) -> Expected:
        size = len(setting.proxy_subset(self.params.public_per_round, round=1))
        shape = (size, *setting.task.answer)
        own = {"familiarity": _FAMILIARITY} if self.params.familiar else {}
        if self.params.top is not None:
            return {**likeliest.expected("logits", shape, self.params.top), **own}
        if _LOGITS & setting.task.offers:
            return {"logits": TensorSpec(shape, torch.float16), **own}
        return {"logits": TensorSpec(shape, low=-_LARGEST, high=_LARGEST), **own}

    def answers(self, setting: Setting) -> Mapping[str, AnswerField]:
        if self.params.top is not None:
            return {}
        spec = self.expects(setting, 0)["logits"]
        answer = AnswerField(spec, lasting=spec.shape[0] == len(setting.proxy))
        return {"logits": answer, "consensus": answer}

    def said(self, ctx: ServerContext, uploads: Uploads, inputs: Callable[[], Rows]) -> Tensor:
        return _answers(uploads, ctx.setting)

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        if any(
            name.startswith("consensus") for name in broadcast
        ):  # the last round's, so it stands on the last round's subset
            inputs = ctx.setting.proxy_inputs(self.params.public_per_round, ctx.round - 1)
            loss = _digested(ctx.setting.task.likelihood, self.params.top)
            told = _received("consensus", broadcast, ctx.setting)
            ctx.distil(inputs, told.float(), loss, self.params.digest)
        ctx.train()
        answers = ctx.answer(ctx.setting.proxy_inputs(self.params.public_per_round, ctx.round))
        sent = _sent("logits", answers, ctx.setting, self.params.top)
        upload = Upload({name: Value(each, ctx.from_teacher) for name, each in sent.items()})
        if not self.params.familiar:
            return upload
        return upload.with_values({"familiarity": _familiarity(ctx)})

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        likelihood = ctx.setting.task.likelihood
        answers = _answers(uploads, ctx.setting)
        if self.params.familiar:
            together = consensus.weighted(answers, ctx.counts(uploads, "familiarity")).float()
        else:
            plain = likelihood.mix or mean
            together = ctx.combine(uploads, answers, plain, likelihood.bounded)
        inputs = ctx.setting.proxy_inputs(self.params.public_per_round, ctx.round)
        loss = label_loss(
            self.params.loss, temperature=self.params.temperature, likelihood=likelihood
        )
        told = _sent("consensus", together, ctx.setting, self.params.top)
        broadcast = ctx.announce(Broadcast(common=told))
        ctx.distil(inputs, together, loss, self.params.student)
        return broadcast


def _answers(uploads: Uploads, setting: Setting) -> Tensor:
    """What all clients answer, (K, N, *A)."""
    return torch.stack([_received("logits", each, setting) for each in uploads.values()])


def _familiarity(ctx: ClientContext) -> Value:
    """How like the client's records the proxy set is: a fact about them, which nothing pays for."""
    # One stream for all clients and rounds: their filters are the same, and so is what they say.
    draws = rng.stream(ctx.setting.experiment.seed, purpose="familiarity")
    with ctx.clock.phase("answer"):
        found = familiarity(ctx.data.x, ctx.setting.proxy, draws)
    number = torch.tensor(found, dtype=torch.float64)
    return Value(number, Release(Unprotected("familiarity with the proxy set")))


def _check_familiar(setting: Setting) -> None:
    """Refuse what a client cannot be compared by, or may not say, and what is no mean."""
    task, unit = setting.task, setting.experiment.privacy.unit
    if unit != "none":
        raise ConfigError(
            f"method.familiar = true sends a number computed from private records, which no noise "
            f"of privacy.unit = {unit!r} covers: leave it out"
        )
    robust = setting.experiment.robust
    if robust is not None and robust.answers != "mean":
        raise ConfigError(
            f"method.familiar = true weighs clients by what they say of themselves, which "
            f"robust.answers = {robust.answers!r} does not look at: leave one of the two out"
        )
    if task.likelihood.mix is not None:
        raise ConfigError(
            "method.familiar = true weighs a mean of answers, and those of task "
            f"{task.name!r} come together in another way: leave it out, or of a detection set "
            "task.together to 'mean'"
        )
    for client in setting.first_clients:
        if not {"image", "features"} & (own := setting.of_client(client).task).offers:
            raise ConfigError(
                f"method.familiar = true compares rows of numbers or images, and client {client} "
                f"sees records of shape {own.inputs}: leave it out"
            )


def _digested(likelihood: Likelihood, top: int | None) -> Loss:
    """By what a client fits its teacher to the consensus: the paper's, where axes mean the same.

    Of log-probabilities, which are no logits that somebody gave, it is the task's divergence.
    """
    if top is None and not likelihood.couples:
        return label.mae
    return partial(likelihood.divergence, temperature=1.0)


def _sent(name: str, answers: Tensor, setting: Setting, top: int | None) -> dict[str, Tensor]:
    """Answers as they cross the wire, no larger than the wire lets in."""
    if top is not None:
        return likeliest.sparse(name, answers, top)
    if _LOGITS & setting.task.offers:
        return {name: half(answers)}
    return {name: answers.clamp(-_LARGEST, _LARGEST)}


def _received(name: str, sent: Tensors, setting: Setting) -> Tensor:
    """Answers that crossed the wire: as they were sent, or log-probabilities of all classes."""
    if name in sent:
        return sent[name]
    return likeliest.dense(name, sent, setting.task.classes)
