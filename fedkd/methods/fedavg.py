"""Federated averaging, of whole models or of all but what stays with each client."""

from collections.abc import Mapping
from typing import TypeVar

from pydantic import Field
from torch import Tensor

from fedkd.config import Frozen
from fedkd.errors import ConfigError
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Broadcast, Tensors, Upload, group, prefixed
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.methods.core.recipes import (
    average_by_count,
    expected_in_sum,
    hand_out,
    start_from,
    with_count,
)
from fedkd.names import choices
from fedkd.rows import Rows

_V = TypeVar("_V")


class FedAvgParams(Frozen):
    """FedAvg's own parameters."""

    private: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Modules or parameters by name, such as `user`, that never leave a client and are its own:
    personalisation layers, Arivazhagan et al. 2019, arXiv:1912.00818. None: there are none."""


class FedAvg(Method):
    """The mean of the clients' models, by example count. McMahan et al. 2017, arXiv:1602.05629.

    What is `private` is trained with the rest, kept from round to round, and neither sent nor
    received; the student's own stays as it was drawn. (FedRep, Collins et al. 2021,
    arXiv:2102.07078, trains the two by turns.)
    """

    card = Card(
        paper="McMahan et al. 2017, arXiv:1602.05629",
        sends="its model and its example count",
        needs="equal models at all clients and the server",
        returns="the averaged model",
        unlike_models=False,
        counts=("example count",),
        summable=True,
        averages=True,
        asynchronous="models",
        combines=("models",),
    )
    Params = FedAvgParams
    params: FedAvgParams

    @property
    def proximal(self) -> float:
        """The weight of FedProx's proximal term: none here."""
        return 0.0

    def check(self, setting: Setting) -> None:
        model = setting.model_specs(setting.experiment.student.model)
        keys = [key.removeprefix("model/") for key in model]
        for name in self.params.private or ():
            if not any(f"{key}.".startswith(f"{name}.") for key in keys):
                parts = dict.fromkeys(key.rpartition(".")[0] for key in keys)
                raise ConfigError(
                    f"method.private names {name!r}, which the model has not: "
                    f"{choices(name, parts, lead='it has ')}"
                )
        if not self._shared(model):
            raise ConfigError(
                "method.private names all of the model, so that nothing is left to average: leave "
                "some out, or choose method 'local'"
            )
        self._check_tied(setting)

    def _check_tied(self, setting: Setting) -> None:
        """Refuse a private part that has another name too, by which it would be sent."""
        spec = setting.experiment.student.model
        state = setting.build(spec, purpose="specification").state_dict()
        shared = self._shared(prefixed("model", setting.student.sent(spec, state)))
        sent = {value.data_ptr(): key for key, value in shared.items() if value.numel()}
        for key, value in prefixed("model", state).items():
            if key not in shared and (other := sent.get(value.data_ptr())) is not None:
                own, tied = (each.removeprefix("model/") for each in (key, other))
                raise ConfigError(
                    f"method.private covers {own!r}, which is one tensor with {tied!r}, and that "
                    "would be sent: name both as private, or neither"
                )

    def expects(self, setting: Setting, client: int) -> Expected:
        expected = self._shared(setting.model_and_count(client))
        return expected_in_sum(expected) if setting.securely else expected

    def probe(self, setting: Setting, client: int, upload: Tensors, x: Rows) -> Tensor | None:
        if not self.params.private:
            return super().probe(setting, client, upload, x)
        # What the server does not get is taken as its own was drawn, where clients begin.
        fresh = setting.build(setting.experiment.client_model(client), purpose="student")
        complete = {**prefixed("model", fresh.state_dict()), **upload}
        return super().probe(setting, client, complete, x)

    def begin(self, ctx: ServerContext) -> Broadcast:
        return Broadcast(common=self._shared(hand_out(ctx).common))

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        self._learn(ctx, broadcast)
        return with_count(ctx, Upload(self._shared(ctx.model().values)))

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        average_by_count(ctx, uploads)
        return self.begin(ctx)

    def _learn(self, ctx: ClientContext, broadcast: Tensors) -> None:
        """Train the teacher from what was received on."""
        ctx.train(anchor=self._start(ctx, broadcast), proximal=self.proximal)

    def _start(self, ctx: ClientContext, broadcast: Tensors) -> Tensors:
        """Have the teacher start a round with what is shared of the broadcast, whatever it has.

        What is private is as the client's last round left it; at first as the server's was drawn,
        so that all clients' go with what is shared.
        """
        ctx.keeps_teacher = bool(self.params.private)
        given = ctx.setting.sent(ctx.spec, group("model", self._shared(broadcast)))
        if self.params.private and not group("teacher", ctx.state):
            given = {**ctx.setting.build(ctx.spec, purpose="student").state_dict(), **given}
        return start_from(ctx, given)

    def _shared(self, named: Mapping[str, _V]) -> dict[str, _V]:
        """What is not private, of values by name, those of a state dict under `model/`."""
        private = tuple(f"model/{name}." for name in self.params.private or ())
        return {key: value for key, value in named.items() if not f"{key}.".startswith(private)}
