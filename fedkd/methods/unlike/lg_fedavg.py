"""Local representations and a global last layer."""

from collections.abc import Callable, Mapping

from torch import Tensor

from fedkd.exchange.codec import Expected
from fedkd.exchange.coding.fields import AnswerField
from fedkd.exchange.messages import Broadcast, Tensors, Upload, group, prefixed, values
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.methods.unlike import proxy_student, shared_head
from fedkd.methods.unlike.proxy_student import ProxyStudentParams
from fedkd.models.heads import head
from fedkd.rows import Rows


class LGFedAvg(Method):
    """Clients keep what makes features and average the last layer, by example count.

    Liang et al. 2020, arXiv:2001.01523.

    Both parts learn together from the private data. The paper shares any upper part of a model; of
    unlike models it is the last layer, which must have one shape. Its global model is the clients'
    ensemble; the student, distilled from the mean of clients' logits on a proxy set, is ours.
    """

    card = Card(
        paper="Liang et al. 2020, arXiv:2001.01523",
        sends="its last layer and its example count, and logits on the proxy set",
        needs="models whose last layers have one shape, and a proxy set",
        returns="the averaged last layer",
        asks=("classes",),
        needs_public=True,
        counts=("example count",),
        announces=True,
        combines=("answers", "models"),
    )
    Params = ProxyStudentParams
    params: ProxyStudentParams

    def check(self, setting: Setting) -> None:
        shared_head.check(setting)

    def expects(self, setting: Setting, client: int) -> Expected:
        own = {"count": setting.example_count, **shared_head.expected(setting)}
        return {**own, **proxy_student.expected(setting)}

    def answers(self, setting: Setting) -> Mapping[str, AnswerField]:
        return proxy_student.answer_fields(setting)

    def said(self, ctx: ServerContext, uploads: Uploads, inputs: Callable[[], Rows]) -> Tensor:
        return proxy_student.said(uploads)

    def begin(self, ctx: ServerContext) -> Broadcast:
        return Broadcast(common=shared_head.sent(shared_head.drawn(ctx.setting)))

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        shared_head.train_from(ctx, broadcast)
        layer = values("head", head(ctx.teacher).state_dict(), ctx.from_teacher)
        return Upload({**layer, "count": ctx.example_count(), **proxy_student.answers(ctx)})

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        layers = [group("head", upload) for upload in uploads.values()]
        averaged = ctx.average(uploads, layers, ctx.counts(uploads, "count").tolist())
        broadcast = ctx.announce(Broadcast(common=prefixed("head", averaged)))
        proxy_student.distil(ctx, uploads, self.params)
        return broadcast
