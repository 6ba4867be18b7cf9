"""Federated distillation by mean answers of each class."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from fedkd.exchange.aggregation import mean
from fedkd.exchange.codec import Expected, half
from fedkd.exchange.coding.fields import AnswerField
from fedkd.exchange.messages import Broadcast, Release, Tensors, Upload, Value
from fedkd.knowledge import label
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.methods.fedproto import by_rule, class_means
from fedkd.methods.unlike import proxy_student
from fedkd.methods.unlike.proxy_student import ProxyStudentParams
from fedkd.models import call
from fedkd.privacy.events import Unprotected
from fedkd.rows import Rows
from fedkd.specs import TensorSpec
from fedkd.tasks.bounded import OF_PROBABILITIES

_MEANS = Unprotected("mean answers of each class, of its records")


class FDParams(ProxyStudentParams):
    """FD's own parameters."""

    weight: float = Field(default=1.0, ge=0)
    """The weight of what others say of a record's class, beside cross-entropy: the paper's
    gamma."""


class FD(Method):
    """Clients send the mean answer of each class and learn from what the others say of it.

    Jeong et al. 2018, arXiv:1811.11479.

    An answer is a softmax. What a client is told of a class is the mean over the other clients that
    hold it, never its own word; of a class that nobody else holds it is told nothing. Ours: the
    mean is of the trained model over all records, where the paper collects it while training, and
    the student, since the paper has no global model: the server distils it from clients' logits on
    a proxy set.
    """

    card = Card(
        paper="Jeong et al. 2018, arXiv:1811.11479",
        sends="its mean answer to the records of each class, and logits on the proxy set",
        needs="a proxy set",
        returns="the mean answer of the other clients to each class",
        asks=("classes",),
        needs_public=True,
        announces=True,
        combines=("answers",),
        no_dp="mean answers are computed from private records, a release of its own that DP-SGD on "
        "the teacher does not cover",
    )
    Params = FDParams
    params: FDParams

    def expects(self, setting: Setting, client: int) -> Expected:
        means = TensorSpec((setting.classes, setting.classes), torch.float16, low=0, high=1)
        return {"means": means, **proxy_student.expected(setting)}

    def answers(self, setting: Setting) -> Mapping[str, AnswerField]:
        return proxy_student.answer_fields(setting)

    def said(self, ctx: ServerContext, uploads: Uploads, inputs: Callable[[], Rows]) -> Tensor:
        return proxy_student.said(uploads)

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        classes = ctx.setting.classes
        told = broadcast.get("means", torch.zeros(classes, classes)).float()
        loss = partial(taught_by_class, told=told, weight=self.params.weight)
        ctx.fit(ctx.teacher, (ctx.data.x, ctx.data.y), loss)
        probabilities = ctx.answer(ctx.data.x).softmax(dim=1)
        own = class_means(probabilities, ctx.data.y, classes)
        return Upload({"means": Value(half(own), Release(_MEANS)), **proxy_student.answers(ctx)})

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        given = torch.stack([upload["means"] for upload in uploads.values()]).float()
        sums = given.sum(dim=2)
        held = sums > 0.5  # honest rows sum to 1, or to 0 where a client has no such record
        means = torch.where(held[:, :, None], given / sums.clamp(min=0.5)[:, :, None], 0.0)
        if ctx.ruled:  # which bounds what each client is heard by, whoever is told
            told = by_rule(ctx.hearing(mean, OF_PROBABILITIES), means, held)
            broadcast = Broadcast(common={"means": told})
        else:
            others = dict(zip(uploads, of_others(means, held), strict=True))
            common = mean_of_holders(means.sum(dim=0), held.sum(dim=0))
            by_client = {client: {"means": told} for client, told in others.items()}
            broadcast = Broadcast(common={"means": common}, by_client=by_client)
        ctx.announce(broadcast)
        proxy_student.distil(ctx, uploads, self.params)
        return broadcast


def taught_by_class(
    model: nn.Module, x: Tensor, y: Tensor, *, told: Tensor, weight: float
) -> Tensor:
    """Cross-entropy + weight * cross-entropy with what others say of the record's class.

    Args:
        model: gives logits (N, C).
        x: inputs (N, *shape).
        y: labels (N,).
        told: probabilities (C, C), a row a class; a row of zeros where nothing is said, whose
            records have their labels alone.
        weight: gamma, at least 0.

    Returns:
        (N,), in nats.
    """
    logits = call.answer(model, x)
    taught = label.soft_cross_entropy(logits, told.to(y.device)[y])
    return F.cross_entropy(logits, y, reduction="none") + weight * taught


def of_others(means: Tensor, held: Tensor) -> Tensor:
    """For each client the mean over the others that hold a class, zeros where nobody else does.

    Args:
        means: (K, C, C), zeros where a client does not hold a class.
        held: bool (K, C).

    Returns:
        (K, C, C).
    """
    return mean_of_holders(means.sum(dim=0) - means, held.sum(dim=0) - held.long())


def mean_of_holders(sums: Tensor, holders: Tensor) -> Tensor:
    """Sums of rows (*, C, C) over how many there are of each, (*, C); zeros where there is none."""
    found = sums / holders.clamp(min=1)[..., None]
    return torch.where(holders[..., None] > 0, found, 0.0)
