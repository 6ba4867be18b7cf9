"""Ensemble distillation for model fusion."""

from pydantic import Field
from torch import Tensor

from fedkd.config import Frozen, ModelSpec, Optimisation
from fedkd.exchange.aggregation import average_models
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Broadcast, Tensors, Upload, group, prefixed
from fedkd.learning.multi_teacher import Ensemble
from fedkd.methods.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.methods.label_loss import LabelLoss, label_loss


class FedDFParams(Frozen):
    """FedDF's own parameters."""

    student: Optimisation = Optimisation(
        epochs=20, batch_size=128, optimiser="adam", learning_rate=1e-3, schedule="cosine"
    )
    """How each fused model is distilled from the ensemble."""
    temperature: float = Field(default=1.0, gt=0)
    """The distillation temperature."""
    loss: LabelLoss = "kd"
    """By which form of knowledge fused models learn: see docs/knowledge.md."""


class FedDF(Method):
    """Average equal models, then distil all clients' ensemble into each average.

    Lin et al. 2020, arXiv:2006.07242.

    Clients of one architecture form a group; the fused model of a group starts from their average
    and goes back to them. A student whose architecture no client has, or who sees less than they,
    learns from the ensemble alone.
    """

    card = Card(
        paper="Lin et al. 2020, arXiv:2006.07242",
        sends="its model and its example count",
        needs="a proxy set",
        returns="the fused model of the client's architecture",
        needs_public=True,
        privileged=True,
        counts=("example count",),
    )
    Params = FedDFParams
    params: FedDFParams

    def expects(self, setting: Setting, client: int) -> Expected:
        return setting.model_and_count(client)

    def begin(self, ctx: ServerContext) -> Broadcast:
        for spec in _groups(ctx.setting):
            start = ctx.setting.build(spec, purpose="group")
            ctx.state.update(prefixed(f"group/{spec}", start.state_dict()))
        if (own := _students_group(ctx.setting)) is not None:
            ctx.student.load_state_dict(_fused(ctx, own))
        return _to_groups(ctx)

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        received = group("model", broadcast)
        ctx.teacher.load_state_dict(received)
        ctx.train(anchor=received)
        return ctx.model_and_count()

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        teachers = ctx.load_teachers(uploads)
        with Ensemble(list(teachers.values()), threads=ctx.threads) as ensemble:
            with ctx.clock.phase("ask the ensemble"):
                targets = ensemble.answer(ctx.setting.proxy)
            ctx.measure_ensemble(ensemble.answer)
        loss = label_loss(self.params.loss, temperature=self.params.temperature)
        own = _students_group(ctx.setting)
        for spec in _groups(ctx.setting):
            fused = ctx.student if spec == own else ctx.setting.build(spec, purpose="group")
            fused.load_state_dict(_average(ctx, spec, uploads))
            ctx.distil(ctx.setting.proxy, targets, loss, self.params.student, model=fused)
            ctx.state.update(prefixed(f"group/{spec}", fused.state_dict()))
        if own is None:
            ctx.distil(ctx.setting.proxy, targets, loss, self.params.student)
        return _to_groups(ctx)


def _groups(setting: Setting) -> list[ModelSpec]:
    """The clients' distinct architectures, in the order of the configuration."""
    models = setting.experiment.clients.models[: setting.clients]
    return [model for i, model in enumerate(models) if model not in models[:i]]


def _students_group(setting: Setting) -> ModelSpec | None:
    """The group whose fused model is the student; none if it is unlike them, or sees less."""
    student = setting.experiment.student.model
    return student if setting.seen is None and student in _groups(setting) else None


def _fused(ctx: ServerContext, spec: ModelSpec) -> dict[str, Tensor]:
    """The group's model as the last round left it."""
    return group(f"group/{spec}", ctx.state)


def _average(ctx: ServerContext, spec: ModelSpec, uploads: Uploads) -> dict[str, Tensor]:
    """The average over the group's clients; where none answered, the group's model as it was."""
    members = [c for c in uploads if ctx.setting.experiment.client_model(c) == spec]
    if not members:
        return _fused(ctx, spec)
    models = [group("model", uploads[client]) for client in members]
    return average_models(models, [int(uploads[client]["count"]) for client in members])


def _to_groups(ctx: ServerContext) -> Broadcast:
    groups = _groups(ctx.setting)
    return Broadcast(by_model={str(s): prefixed("model", _fused(ctx, s)) for s in groups})
