"""FedMD with clients that send, or touch, more than was paid for."""

import torch

from fedkd.exchange.messages import PostProcessing, Release, Value
from fedkd.methods.core.base import Card
from fedkd.methods.dsfl import DSFL
from fedkd.methods.fedmd import FedMD, FedMDParams
from fedkd.privacy.events import Gaussian, Unprotected
from fedkd.specs import TensorSpec

SEEN = []
"""The class counts that the server has received."""


class LeakyParams(FedMDParams):
    leak: str


class Leaky(FedMD):
    Params = LeakyParams

    def client(self, ctx, broadcast):
        upload = super().client(ctx, broadcast)
        match self.params.leak:
            case "class means":
                leak = Value(torch.zeros(3), Release(Unprotected("class means")))
            case "invented event":
                leak = Value(torch.zeros(3), PostProcessing(of=Gaussian("teacher training", 9.0)))
            case "raw data":
                leak = Value(ctx.data.x.mean(dim=0), Release(Unprotected("mean")))
            case "trains twice":
                ctx.train()
                leak = Value(torch.zeros(3), ctx.from_teacher)
            case "unnamed count":
                leak = ctx.example_count()
        return upload.with_values({"leak": leak})


class Histogram(FedMD):
    """Names its counts in the card, and sends them."""

    card = Card(
        paper="none",
        sends="logits and class counts",
        needs="a proxy set",
        returns="the mean of all logits",
        needs_public=True,
        counts=("class counts",),
    )

    def expects(self, setting, client):
        counts = TensorSpec((setting.classes,), torch.int64, low=0)
        return {**super().expects(setting, client), "histogram": counts}

    def client(self, ctx, broadcast):
        upload = super().client(ctx, broadcast)
        return upload.with_values({"histogram": ctx.class_counts()})

    def server(self, ctx, uploads):
        SEEN.extend(tuple(upload["histogram"].tolist()) for upload in uploads.values())
        return super().server(ctx, uploads)


class FailsParams(FedMDParams):
    fails: int


class Fails(FedMD):
    """One client trains, and then fails."""

    Params = FailsParams

    def client(self, ctx, broadcast):
        upload = super().client(ctx, broadcast)
        if ctx.client == self.params.fails:
            raise RuntimeError
        return upload


class Pools(FedMD):
    """The server part looks at everybody's data."""

    def server(self, ctx, uploads):
        ctx.pooled()
        return super().server(ctx, uploads)


class Forgets(DSFL):
    """The server part combines answers as they are."""

    def server(self, ctx, uploads):
        ctx.protect = lambda answers: answers
        return super().server(ctx, uploads)
