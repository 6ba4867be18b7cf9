"""Federated averaging."""

from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Broadcast, Tensors, Upload
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.methods.core.recipes import average_into_student, hand_out, train_received


class FedAvg(Method):
    """The mean of the clients' models, by example count. McMahan et al. 2017, arXiv:1602.05629."""

    card = Card(
        paper="McMahan et al. 2017, arXiv:1602.05629",
        sends="its model and its example count",
        needs="equal models at all clients and the server",
        returns="the averaged model",
        unlike_models=False,
        counts=("example count",),
    )

    @property
    def proximal(self) -> float:
        """The weight of FedProx's proximal term: none here."""
        return 0.0

    def expects(self, setting: Setting, client: int) -> Expected:
        return setting.model_and_count(client)

    def begin(self, ctx: ServerContext) -> Broadcast:
        return hand_out(ctx)

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        train_received(ctx, broadcast, proximal=self.proximal)
        return ctx.model_and_count()

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        counts = ctx.counts(uploads, "count")
        average_into_student(ctx, uploads, counts)
        return self.begin(ctx)
