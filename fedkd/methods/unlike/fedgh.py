"""Unlike models under one last layer, which the server trains on class prototypes."""

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from fedkd.config import Optimisation
from fedkd.exchange.codec import Expected
from fedkd.exchange.coding.fields import AnswerField
from fedkd.exchange.messages import Broadcast, Tensors, Upload, group
from fedkd.learning import loop
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.methods.unlike import prototypes, proxy_student, shared_head
from fedkd.methods.unlike.proxy_student import ProxyStudentParams
from fedkd.models.heads import Head, logits_of
from fedkd.rows import Rows


class FedGHParams(ProxyStudentParams):
    """FedGH's own parameters."""

    head: Optimisation = Optimisation(epochs=10, batch_size=10)
    """How the server trains the global last layer on a round's prototypes."""


class FedGH(Method):
    """The server trains a last layer on all clients' prototypes; clients put it on their models.

    Yi et al. 2023, arXiv:2303.13137.

    A client takes the global layer, trains the whole of its model, and sends the mean feature of
    each class. The layer goes on from round to round. The student, distilled from clients' logits
    on a proxy set, is ours: the paper ends with the clients' models.
    """

    card = Card(
        paper="Yi et al. 2023, arXiv:2303.13137",
        sends="the mean feature of each class of its records, and logits on the proxy set",
        needs="models whose last layers have one shape, and a proxy set",
        returns="a last layer that was trained on all clients' mean features",
        asks=("classes",),
        needs_public=True,
        announces=True,
        combines=("answers",),
        no_dp=prototypes.NO_DP,
    )
    Params = FedGHParams
    params: FedGHParams

    def check(self, setting: Setting) -> None:
        shared_head.check(setting)

    def expects(self, setting: Setting, client: int) -> Expected:
        return {**prototypes.expected(setting, client), **proxy_student.expected(setting)}

    def answers(self, setting: Setting) -> Mapping[str, AnswerField]:
        return proxy_student.answer_fields(setting)

    def said(self, ctx: ServerContext, uploads: Uploads, inputs: Callable[[], Rows]) -> Tensor:
        return proxy_student.said(uploads)

    def begin(self, ctx: ServerContext) -> Broadcast:
        return Broadcast(common=shared_head.sent(shared_head.drawn(ctx.setting)))

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        shared_head.train_from(ctx, broadcast)
        return Upload({**prototypes.sent(ctx), **proxy_student.answers(ctx)})

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        layer = shared_head.drawn(ctx.setting)
        if kept := group("head", ctx.state):
            layer.load_state_dict(kept)
        means, classes = prototypes.rows(ctx, uploads)
        if len(classes):  # or nobody says that it holds any
            self._learn(ctx, layer, means, classes)
        ctx.state.update(shared_head.sent(layer))
        broadcast = ctx.announce(Broadcast(common=shared_head.sent(layer)))
        proxy_student.distil(ctx, uploads, self.params)
        return broadcast

    def _learn(self, ctx: ServerContext, layer: Head, means: Tensor, classes: Tensor) -> None:
        """Train the layer on prototypes (M, F) of classes (M,), by cross-entropy."""
        how = self.params.head

        def loss(_: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(logits_of(layer, x), y, reduction="none")

        with ctx.on_device(layer), ctx.clock.phase("train the last layer", how.epochs) as advance:
            losses = loop.fit(
                layer,
                (means, classes),
                loss,
                how,
                ctx.rng("head"),
                on_epoch=lambda *_: advance(),
            )
        ctx.losses["head"] = losses[-1]
