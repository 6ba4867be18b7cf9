"""Group knowledge transfer: small fronts at the clients, a large back at the server."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from fedkd import rng
from fedkd.config import Frozen, Optimisation
from fedkd.errors import ConfigError
from fedkd.exchange.codec import Expected, half
from fedkd.exchange.coding.fields import AnswerField
from fedkd.exchange.messages import (
    Broadcast,
    Release,
    Tensors,
    Upload,
    Value,
    group,
    prefixed,
    values,
)
from fedkd.knowledge import label
from fedkd.learning import evaluate, loop
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.models import call
from fedkd.models.split import split
from fedkd.privacy.events import Unprotected
from fedkd.rng import torch_default
from fedkd.rows import Rows
from fedkd.specs import TensorSpec

_LARGEST = 1e3
"""The most that a feature or a logit of a record may be: far above honest ones, and far below what
would overflow the server's training."""
_RECORDS = Unprotected("features, logits and labels of single records")


class FedGKTParams(Frozen):
    """FedGKT's own parameters."""

    layer: str | None = None
    """The layer of the student's model after which it is cut; must be given."""
    records: int = Field(default=200, ge=1)
    """Private records of which a client sends features, logits and label in a round."""
    back: Optimisation = Optimisation(epochs=5)
    """How the server trains the back on what it was sent."""
    weight: float = Field(default=1.0, ge=0)
    """The weight of each side's distillation from the other, beside cross-entropy."""
    temperature: float = Field(default=3.0, gt=0)
    """The distillation temperature of both sides; the authors' code has 3."""


class FedGKT(Method):
    """Clients train the front, the server trains the back on their features, and both teach.

    He et al. 2020, arXiv:2007.14513.

    The student's model is cut after a layer. A client has the front and a linear classifier of its
    own on top; it sends features, logits and labels of some of its records, drawn anew each round,
    and the server returns the back's logits on them. In the paper each client keeps its front and
    sends all records. That the fronts are sent too, and averaged by example count each round, is
    ours: the student is that average with the back behind it, one model for everybody.
    """

    card = Card(
        paper="He et al. 2020, arXiv:2007.14513",
        sends="features, logits and labels of single private records, its front and its example "
        "count",
        needs="one sequential model, cut at a layer",
        returns="the averaged front, and the server's logits on the client's own records",
        asks=("classes",),
        unlike_models=False,
        has_teachers=False,
        counts=("example count",),
        combines=("models",),
        no_dp="features and labels of single private records leave the client as they are",
    )
    Params = FedGKTParams
    params: FedGKTParams

    def check(self, setting: Setting) -> None:
        try:
            self._parts(setting)
        except ConfigError as error:
            raise ConfigError(f"method.layer: {error}") from error

    def expects(self, setting: Setting, client: int) -> Expected:
        front, _ = self._parts(setting)
        model = setting.model_specs(setting.experiment.student.model)
        rows, classes = self.params.records, setting.classes
        return {
            **{f"front/{name}": model[f"model/{name}"] for name in front.state_dict()},
            "features": TensorSpec(
                (rows, *_feature_shape(front, setting)), torch.float16, low=-_LARGEST, high=_LARGEST
            ),
            "record_logits": TensorSpec(
                (rows, classes), torch.float16, low=-_LARGEST, high=_LARGEST
            ),
            "labels": TensorSpec((rows,), torch.int64, low=0, high=classes - 1),
            "count": setting.example_count,
        }

    def answers(self, setting: Setting) -> Mapping[str, AnswerField]:
        own = AnswerField(self.expects(setting, 0)["record_logits"], lasting=False)
        return {"record_logits": own, "answers": own}

    def probe(self, setting: Setting, client: int, upload: Tensors, x: Rows) -> Tensor | None:
        front, _ = self._parts(setting)
        front.load_state_dict(group("front", upload))
        return evaluate.answers(front, x)

    def begin(self, ctx: ServerContext) -> Broadcast:
        front, _ = split(ctx.student, self.params.layer)
        return Broadcast(common=prefixed("front", front.state_dict()))

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        front, _ = self._parts(ctx.setting)
        front.load_state_dict(group("front", broadcast))
        head = _head(ctx, _feature_shape(front, ctx.setting))
        self._learn(ctx, nn.Sequential(front, head), broadcast.get("answers"))
        ctx.keep("head", head.state_dict())
        chosen = ctx.data.subset(self._records(ctx, ctx.round))
        with ctx.clock.phase("answer"), ctx.on_device(front, head):
            features = evaluate.answers(front, chosen.x)
            logits = evaluate.answers(head, features)
        origin = Release(_RECORDS)
        return Upload(
            {
                **values("front", front.state_dict(), ctx.from_teacher),
                "features": Value(half(features), origin),
                "record_logits": Value(half(logits), origin),
                "labels": Value(chosen.y, origin),
                "count": ctx.example_count(),
            }
        )

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        front, back = split(ctx.student, self.params.layer)
        fronts = [group("front", upload) for upload in uploads.values()]
        counts = ctx.counts(uploads, "count").tolist()
        front.load_state_dict(ctx.average(uploads, fronts, counts))
        features, logits, labels = (
            torch.cat([upload[name] for upload in uploads.values()])
            for name in ("features", "record_logits", "labels")
        )
        how, ones = self.params.back, torch.ones(len(labels))
        with ctx.on_device(back), ctx.clock.phase("train the back", how.epochs) as advance:
            losses = loop.fit(
                back,
                (features.float(), labels, logits.float(), ones),
                self._loss,
                how,
                ctx.rng("back"),
                on_epoch=lambda *_: advance(),
            )
            answers = half(evaluate.answers(back, features.float()))
        ctx.losses["train"] = losses[-1]
        own = torch.split(answers, self.params.records)
        by_client = {c: {"answers": mine} for c, mine in zip(uploads, own, strict=True)}
        return Broadcast(common=prefixed("front", front.state_dict()), by_client=by_client)

    def _learn(self, ctx: ClientContext, edge: nn.Module, answers: Tensor | None) -> None:
        """Train front and head on all records, and from the server on those it answered."""
        targets = torch.zeros(len(ctx.data), ctx.setting.classes)
        answered = torch.zeros(len(ctx.data))
        if answers is not None:  # the last round's, so they stand on the last round's records
            sent = self._records(ctx, ctx.round - 1)
            targets[sent], answered[sent] = answers.float(), 1.0
        ctx.fit(edge, (ctx.data.x, ctx.data.y, targets, answered), self._loss)

    def _loss(
        self, model: nn.Module, x: Tensor, y: Tensor, targets: Tensor, answered: Tensor
    ) -> Tensor:
        """Cross-entropy + weight * T^2 KL(targets || model) where `answered` is 1; (N,) in nats."""
        logits = call.answer(model, x)
        taught = answered * label.kd(logits, targets, temperature=self.params.temperature)
        return F.cross_entropy(logits, y, reduction="none") + self.params.weight * taught

    def _records(self, ctx: ClientContext, round: int) -> Tensor:
        """The numbers of the records that a client sends in a round; too few are repeated."""
        seed, size = ctx.setting.experiment.seed, len(ctx.data)
        generator = rng.stream(seed, purpose="records", round=round, client=ctx.client)
        order = torch.randperm(size, generator=generator)
        return order[torch.arange(self.params.records) % size]

    def _parts(self, setting: Setting) -> tuple[nn.Sequential, nn.Sequential]:
        model = setting.build(setting.experiment.student.model, purpose="specification")
        return split(model, self.params.layer)


def _feature_shape(front: nn.Module, setting: Setting) -> tuple[int, ...]:
    return tuple(evaluate.answers(front, torch.zeros(1, *setting.shape)).shape[1:])


def _head(ctx: ClientContext, shape: tuple[int, ...]) -> nn.Module:
    """The client's own classifier of features, as it was after its last round, or fresh."""
    with torch_default(ctx.rng("head")):
        head = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), ctx.setting.classes))
    if kept := group("head", ctx.state):
        head.load_state_dict(kept)
    return head
