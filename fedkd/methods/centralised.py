"""The upper bound: one model on everybody's data, which no federation may see."""

from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Broadcast, Tensors, Upload
from fedkd.learning import supervised
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads


class Centralised(Method):
    """The student trains on the pooled private data, as the clients would. In a simulation only."""

    card = Card(
        paper="none: the upper bound",
        sends="nothing; the simulation pools the data",
        needs="a simulation",
        returns="a student trained on all private data",
        simulation_only=True,
        has_teachers=False,
        no_dp="it pools the clients' private data, and no client keeps a ledger for the pool",
    )

    def expects(self, setting: Setting, client: int) -> Expected:
        return {}

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        return Upload()

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        training = ctx.setting.experiment.clients.training
        with (
            ctx.on_device(ctx.student),
            ctx.clock.phase("train on pooled data", training.epochs) as advance,
        ):
            losses = supervised.train(
                ctx.student,
                ctx.pooled(),
                training,
                ctx.rng("batches"),
                likelihood=ctx.setting.task.likelihood,
                on_epoch=lambda _epoch, _loss: advance(),
            )
        ctx.losses["train"] = losses[-1]
        return Broadcast()
