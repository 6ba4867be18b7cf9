"""Federated averaging."""

from fedkd.exchange.aggregation import average_models
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Broadcast, Tensors, Upload, group, prefixed
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads


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
        return Broadcast(common=prefixed("model", ctx.student.state_dict()))

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        received = group("model", broadcast)
        ctx.teacher.load_state_dict(received)
        ctx.train(anchor=received, proximal=self.proximal)
        return ctx.model_and_count()

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        models = [group("model", upload) for upload in uploads.values()]
        counts = ctx.counts(uploads, "count")
        ctx.student.load_state_dict(average_models(models, counts.tolist()))
        return self.begin(ctx)
