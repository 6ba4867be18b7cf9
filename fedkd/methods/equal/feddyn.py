"""Federated averaging with losses that are regularised anew each round."""

from pydantic import Field

from fedkd.config import Frozen
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Broadcast, Tensors, Upload, group, prefixed
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.methods.core.recipes import hand_out, receive
from fedkd.methods.equal import evenly
from fedkd.methods.equal.corrected import kept, train_corrected

_DRIFT = "drift"
"""Under which parties keep how far rounds have moved parameters in all, from where each began."""
_START = "start"
"""Under which the server keeps where the round's clients begin."""


class FedDynParams(Frozen):
    """FedDyn's own parameters."""

    alpha: float = Field(default=0.01, gt=0)
    """The weight of alpha/2 ||w - w_start||^2 and of the linear term that goes with it."""


class FedDyn(Method):
    """Clients' losses are changed so that all have their minimum where the sum of them has it.

    Acar et al. 2021, arXiv:2111.04263. Client k minimises
    L_k(w) - <h_k, w> + alpha/2 ||w - w_start||^2, then takes alpha (w_k - w_start) off h_k, which
    so becomes the gradient of L_k there. Clients start from the mean of the round's models minus
    h / alpha, where h loses alpha/m times the sum of w_k - w_start over the round's clients of all
    m. The student is that mean itself, which the paper's theorem is about; where clients start lies
    further on, after a first round twice as far.

    Each client counts alike, as in the paper. Statistics of BatchNorm are means, and no parameters.
    """

    card = Card(
        paper="Acar et al. 2021, arXiv:2111.04263",
        sends="its model",
        needs="equal models at all clients and the server",
        returns="a model beyond the average, by all that clients have moved so far",
        unlike_models=False,
        summable=True,
        combines=("models",),
    )
    Params = FedDynParams
    params: FedDynParams

    def expects(self, setting: Setting, client: int) -> Expected:
        own, spec = setting.of_client(client), setting.experiment.client_model(client)
        return evenly.expected(setting, own.model_specs(spec))

    def begin(self, ctx: ServerContext) -> Broadcast:
        return hand_out(ctx)

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        drift, alpha = kept(ctx, _DRIFT), self.params.alpha
        start = receive(ctx, broadcast)
        # h_k is minus alpha times what all rounds have moved.
        correction = {name: alpha * each for name, each in drift.items()}
        train_corrected(ctx, start, correction, proximal=alpha)
        end = ctx.teacher.state_dict()
        ctx.keep(_DRIFT, {n: each + end[n] - start[n] for n, each in drift.items()})
        return evenly.part(ctx.setting, ctx.model())

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        drift = kept(ctx, _DRIFT)
        start = group(_START, ctx.state) or {n: ctx.student.state_dict()[n].clone() for n in drift}
        mean = group("model", evenly.together(ctx, uploads))
        share = ctx.parties(uploads) / ctx.setting.clients
        drift = {n: (each + share * (mean[n] - start[n])).float() for n, each in drift.items()}
        ctx.student.load_state_dict({**ctx.student.state_dict(), **mean})
        begun = {n: (mean[n] + each).float() for n, each in drift.items()}
        ctx.state.update({**prefixed(_DRIFT, drift), **prefixed(_START, begun)})
        return Broadcast(common={**hand_out(ctx).common, **prefixed("model", begun)})
