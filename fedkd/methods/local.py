"""No collaboration: what the largest party would have had alone."""

from fedkd.errors import ConfigError
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Broadcast, Tensors, Upload, group
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.models import weights


class Local(Method):
    """Each client trains alone; the student is the teacher of the client with the most samples.

    That client is chosen by example count, without a look at test data, among those whose
    architecture is the student's.
    """

    card = Card(
        paper="none: the lower baseline",
        sends="its model and its example count, to be measured; nothing comes back",
        needs="a client with the student's architecture",
        returns="the largest client's teacher",
        counts=("example count",),
    )

    def check(self, setting: Setting) -> None:
        experiment = setting.experiment
        dealt = [str(experiment.client_model(client)) for client in range(setting.clients)]
        if str(experiment.student.model) not in dealt:
            found = ", ".join(dict.fromkeys(dealt))
            raise ConfigError(
                f"student.model is {str(experiment.student.model)!r}: method 'local' hands over "
                f"one client's teacher, so expected one that a client has ({found})"
            )

    def expects(self, setting: Setting, client: int) -> Expected:
        return setting.model_and_count(client)

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        ctx.train()
        return ctx.model_and_count()

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        experiment = ctx.setting.experiment
        alike = [c for c in uploads if experiment.client_model(c) == experiment.student.model]
        if alike:
            largest = max(alike, key=lambda client: int(uploads[client]["count"]))
            weights.complete(ctx.student, group("model", uploads[largest]))
        return Broadcast()
