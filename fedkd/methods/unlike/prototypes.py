"""Class prototypes as clients send them, and as rows that a server learns from."""

import torch
from torch import Tensor

from fedkd.exchange.aggregation import mean
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Release, Value
from fedkd.methods.core.client_context import ClientContext
from fedkd.methods.core.server_context import ServerContext, Uploads
from fedkd.methods.core.setting import Setting
from fedkd.methods.fedproto import (
    LARGEST,
    PROTOTYPES,
    by_rule,
    class_means,
    shortened,
    teacher_features,
)
from fedkd.specs import TensorSpec

NO_DP = (
    "prototypes are means of private records' features, a release of its own that DP-SGD on the "
    "teacher does not cover"
)
"""Why what sends them cannot run under differential privacy."""


def expected(setting: Setting, client: int) -> Expected:
    """What `sent` must look like: prototypes (C, F), and of which classes there is one, (C,)."""
    width = setting.of_client(client).feature_width(setting.experiment.client_model(client))
    return {
        "prototypes": TensorSpec((setting.classes, width), low=-LARGEST, high=LARGEST),
        "held": TensorSpec((setting.classes,), torch.bool),
    }


def sent(ctx: ClientContext) -> dict[str, Value]:
    """The mean features of the records of each class, by the teacher as it is now."""
    classes, y = ctx.setting.classes, ctx.data.y
    own = class_means(teacher_features(ctx, ctx.data.x), y, classes)
    held, release = torch.bincount(y, minlength=classes) > 0, Release(PROTOTYPES)
    return {"prototypes": Value(own, release), "held": Value(held, release)}


def rows(ctx: ServerContext, uploads: Uploads) -> tuple[Tensor, Tensor]:
    """All clients' prototypes (M, F), none flung far away, and their classes (M,).

    Under a rule of `[robust]` one a class: what it makes of those of the clients that hold it.
    """
    held = torch.stack([upload["held"] for upload in uploads.values()])
    means = shortened(torch.stack([upload["prototypes"] for upload in uploads.values()]), held)
    if ctx.ruled:
        means = by_rule(ctx.hearing(mean, None), means, held)[None]
        held = held.any(dim=0)[None]
    return means[held], held.nonzero()[:, 1]
