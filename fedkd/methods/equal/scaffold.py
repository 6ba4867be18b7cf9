"""Federated averaging with control variates."""

from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Broadcast, Tensors, Upload, group, prefixed, values
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.methods.core.recipes import hand_out, receive
from fedkd.methods.equal import evenly
from fedkd.methods.equal.corrected import kept, parameters, train_corrected
from fedkd.specs import TensorSpec

_CONTROL = "control"
"""Under which control variates, a tensor for each parameter, are sent and kept."""


class Scaffold(Method):
    """Every local step is corrected by how the client's gradients differ from everybody's.

    Karimireddy et al. 2020, arXiv:1910.06378. A step goes along gradient - c_i + c: c_i is the
    client's control variate, the mean gradient of its last round, and c that of all N clients. Of a
    round's clients S the server takes the plain mean of models, as the paper does, and
    c + |S|/N mean(new c_i - old c_i). The global step is 1, as in the paper's experiments.

    The paper's option II reads the mean gradient off (x - y) / (K eta): right for plain SGD alone,
    and ten times too much under momentum .9. Here it is the mean of the gradients themselves. What
    an answer that was lost had changed of c_i is lost to c.
    """

    card = Card(
        paper="Karimireddy et al. 2020, arXiv:1910.06378",
        sends="its model and the change of its mean gradient, as much again",
        needs="equal models at all clients and the server",
        returns="the averaged model and the mean gradient of all clients",
        unlike_models=False,
        summable=True,
        combines=("models",),
    )

    def expects(self, setting: Setting, client: int) -> Expected:
        own, spec = setting.of_client(client), setting.experiment.client_model(client)
        control = {f"{_CONTROL}/{n}": TensorSpec.of(t) for n, t in parameters(setting).items()}
        return evenly.expected(setting, {**own.model_specs(spec), **control})

    def begin(self, ctx: ServerContext) -> Broadcast:
        return Broadcast(common={**hand_out(ctx).common, **prefixed(_CONTROL, kept(ctx, _CONTROL))})

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        own, all_clients = kept(ctx, _CONTROL), group(_CONTROL, broadcast)
        start = receive(ctx, broadcast)
        correction = {name: all_clients[name] - each for name, each in own.items()}
        found = train_corrected(ctx, start, correction)
        ctx.keep(_CONTROL, found)
        changes = {name: found[name] - each for name, each in own.items()}
        sent = ctx.model().with_values(values(_CONTROL, changes, ctx.from_teacher))
        return evenly.part(ctx.setting, sent)

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        mean = evenly.together(ctx, uploads)
        ctx.student.load_state_dict({**ctx.student.state_dict(), **group("model", mean)})
        share = ctx.parties(uploads) / ctx.setting.clients
        changes = group(_CONTROL, mean)
        moved = {n: (each + share * changes[n]).float() for n, each in kept(ctx, _CONTROL).items()}
        ctx.state.update(prefixed(_CONTROL, moved))
        return self.begin(ctx)
