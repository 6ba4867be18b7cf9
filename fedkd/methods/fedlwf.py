"""Federated averaging of clients that do not forget what earlier stages taught."""

from pydantic import Field

from fedkd.config import Frozen
from fedkd.errors import ConfigError
from fedkd.exchange.messages import Broadcast, Tensors, Upload, group, prefixed
from fedkd.learning import retention
from fedkd.methods.core.base import Card, ClientContext, ServerContext, Setting
from fedkd.methods.core.recipes import hand_out, receive, train_received
from fedkd.methods.fedavg import FedAvg

_BEFORE = "before"
"""Under which the server hands out its model as the last stage left it."""


class FedLwFParams(Frozen):
    """FedLwF's own parameters."""

    weight: float = Field(default=1.0, ge=0)
    """Of the distance from the answers of the server's model as the last stage left it; 0 is
    FedAvg."""
    temperature: float = Field(default=2.0, gt=0)
    """Of both models' answers; Li & Hoiem's."""


class FedLwF(FedAvg):
    """FedAvg whose clients are held to what the server's model said before the stage began.

    Learning without Forgetting (Li & Hoiem 2016, arXiv:1606.09282) in a federation, as FLwF of
    Usmanova et al. 2021, arXiv:2109.04197, whose teacher is each client's own last model.
    """

    card = Card(
        paper="compare Usmanova et al. 2021, arXiv:2109.04197",
        sends="its model and its example count",
        needs="equal models at all clients and the server, and data in stages ([data.stream])",
        returns="the averaged model, and that of before the stage",
        unlike_models=False,
        counts=("example count",),
    )
    Params = FedLwFParams
    params: FedLwFParams

    def check(self, setting: Setting) -> None:
        if setting.stages is None:
            raise ConfigError(
                "method 'fedlwf' keeps what earlier stages taught, and the data comes in none: add "
                "a section [data.stream], such as by = 'classes', stages = 5, or choose 'fedavg'"
            )

    def begin(self, ctx: ServerContext) -> Broadcast:
        stage = ctx.setting.stage
        if ctx.round and stage(ctx.round + 1) != stage(ctx.round):
            ctx.state.update(prefixed(_BEFORE, ctx.student.state_dict()))
        before = prefixed(_BEFORE, group(_BEFORE, ctx.state))
        return Broadcast(common={**hand_out(ctx).common, **before})

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        stages, stage = ctx.setting.stages, ctx.setting.stage(ctx.round)
        if stages is None or not stage or not self.params.weight:
            train_received(ctx, broadcast)
            return ctx.model_and_count()
        receive(ctx, broadcast)
        before = ctx.setting.build(ctx.spec, purpose="specification").eval()
        before.load_state_dict(group(_BEFORE, broadcast))
        how = self.params.model_dump(include={"weight", "temperature"})
        ctx.train_beside(before, retention.terms(stages, ctx.setting.task, stage, **how))
        return ctx.model_and_count()
