"""The global student of methods whose papers have none: what clients say of a proxy set, distilled.

It is made alike for all of them, so that students beside each other differ by what clients learned.
"""

from collections.abc import Mapping
from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from fedkd.config import Frozen, Optimisation
from fedkd.exchange.aggregation import mean
from fedkd.exchange.codec import Expected, half
from fedkd.exchange.coding.fields import AnswerField
from fedkd.exchange.messages import Value
from fedkd.knowledge import label
from fedkd.methods.core.client_context import ClientContext
from fedkd.methods.core.server_context import ServerContext, Uploads
from fedkd.methods.core.setting import Setting
from fedkd.specs import TensorSpec


class ProxyStudentParams(Frozen):
    """How the server makes a student of what clients say of the proxy set."""

    student: Optimisation = Optimisation(epochs=10)
    """How the server distils the clients' mean logits into the student."""
    temperature: float = Field(default=1.0, gt=0)
    """The student's distillation temperature."""


def expected(setting: Setting) -> Expected:
    """What `answers` must look like: logits (N, C) on the proxy set, float16."""
    return {"logits": TensorSpec((len(setting.proxy), setting.classes), torch.float16)}


def answer_fields(setting: Setting) -> Mapping[str, AnswerField]:
    """What `[exchange]` may write in fewer bits: the same inputs are answered in every round."""
    return {"logits": AnswerField(expected(setting)["logits"], lasting=True)}


def answers(ctx: ClientContext) -> dict[str, Value]:
    """What the teacher says of the proxy set, computed from the teacher alone."""
    return {"logits": Value(half(ctx.answer(ctx.setting.proxy)), ctx.from_teacher)}


def said(uploads: Uploads) -> Tensor:
    """What all clients say of the proxy set, (K, N, C)."""
    return torch.stack([upload["logits"] for upload in uploads.values()])


def distil(ctx: ServerContext, uploads: Uploads, params: ProxyStudentParams) -> None:
    """Teach the student the clients' mean logits, or what a rule of `[robust]` makes of them."""
    bounded = ctx.setting.task.likelihood.bounded
    together = ctx.combine(uploads, said(uploads), mean, bounded)
    loss = partial(label.kd, temperature=params.temperature)
    ctx.distil(ctx.setting.proxy, together, loss, params.student)
