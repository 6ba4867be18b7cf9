"""Ensemble distillation for model fusion."""

from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from fedkd.config import Frozen, ModelSpec, Optimisation
from fedkd.data.types import Samples
from fedkd.errors import ConfigError
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Broadcast, Tensors, Upload, group, prefixed
from fedkd.learning import consensus
from fedkd.learning.data_free import objectives
from fedkd.learning.ensemble import Ensemble
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.methods.core.label_loss import LabelLoss, check_loss, label_loss
from fedkd.methods.core.one_shot import Synthesis, check_images, check_statistics, synthesised
from fedkd.methods.core.recipes import train_received
from fedkd.models import weights
from fedkd.rows import Rows, concat


class Generator(Synthesis):
    """How inputs are made up where there is no proxy set."""

    batches: int = Field(default=8, ge=1)
    """Batches of a round, each by a fresh generator."""
    bn: float = Field(default=1.0, ge=0)
    """The weight of the distance to the teachers' BatchNorm statistics."""
    adversarial: float = Field(default=1.0, ge=0)
    """The weight of the disagreement between ensemble and student."""


class FedDFParams(Frozen):
    """FedDF's own parameters."""

    student: Optimisation = Optimisation(
        epochs=20, batch_size=128, optimiser="adam", learning_rate=1e-3, schedule="cosine"
    )
    """How each fused model is distilled from the ensemble."""
    temperature: float = Field(default=1.0, gt=0)
    """The distillation temperature."""
    loss: LabelLoss = "kd"
    """By which form of knowledge fused models learn: see docs/knowledge.md. For a task without
    classes it is `divergence` unless given."""
    generator: Generator = Generator()
    """What makes up inputs without a `[data.public]`; with one it is not used."""


class FedDF(Method):
    """Average equal models, then distil all clients' ensemble into each average.

    Lin et al. 2020, arXiv:2006.07242.

    Clients of one architecture form a group; the fused model of a group starts from their average
    and goes back to them. A student whose architecture no client has, or who sees less than they,
    learns from the ensemble alone.

    Without a proxy set, images are made up anew each round, by DENSE's generator and its loss
    against the student: the paper takes those of a generator that it was given.
    """

    card = Card(
        paper="Lin et al. 2020, arXiv:2006.07242",
        sends="its model and its example count",
        needs="a proxy set, or images",
        returns="the fused model of the client's architecture",
        privileged=True,
        aligns=True,
        counts=("example count",),
        asynchronous="models",
        combines=("answers", "models"),
    )
    Params = FedDFParams
    params: FedDFParams

    def check(self, setting: Setting) -> None:
        check_loss(self.params.loss, setting.task)
        if len(setting.views) > 1:
            raise ConfigError(
                "method 'feddf' averages models of one architecture, and clients.views shows them "
                "unlike inputs: let all clients see the same, or choose fedmd, dsfl or fedproto"
            )
        if setting.public is None:
            check_images(setting)
            check_statistics(setting, "method.generator.bn", self.params.generator.bn)

    def expects(self, setting: Setting, client: int) -> Expected:
        return setting.model_and_count(client)

    def begin(self, ctx: ServerContext) -> Broadcast:
        for spec in _groups(ctx.setting):
            start = ctx.setting.of_client(0).build(spec, purpose="group")
            ctx.state.update(prefixed(f"group/{spec}", start.state_dict()))
        if (own := _students_group(ctx.setting)) is not None:
            ctx.student.load_state_dict(_fused(ctx, own))
        return _to_groups(ctx)

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        train_received(ctx, broadcast)
        return ctx.model_and_count()

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        teachers = ctx.load_teachers(uploads)
        own, teachers_see = _students_group(ctx.setting), ctx.setting.of_client(0)
        fused = [
            (spec, ctx.student if spec == own else teachers_see.build(spec, purpose="group"))
            for spec in _groups(ctx.setting)
        ]
        for spec, model in fused:
            weights.complete(model, _average(ctx, spec, uploads))
        likelihood = ctx.setting.task.likelihood
        plain, models = consensus.of_task(likelihood), list(teachers.values())
        hear = ctx.hearing(plain, likelihood.bounded)
        with Ensemble(models, threads=ctx.threads, average=hear) as ensemble:
            inputs = self._inputs(ctx, ensemble)
            with ctx.clock.phase("ask the ensemble"):
                seen = ctx.setting.clients_view(0, inputs)
                said = ensemble.logits(seen)
            targets = ctx.combine(uploads, said, plain, likelihood.bounded)
            ctx.measure_ensemble(lambda x: ensemble.answer(ctx.setting.clients_view(0, x)))
        loss = label_loss(
            self.params.loss, temperature=self.params.temperature, likelihood=likelihood
        )
        for spec, model in fused:
            shown = inputs if model is ctx.student else seen
            ctx.distil(shown, targets, loss, self.params.student, model=model)
            ctx.state.update(prefixed(f"group/{spec}", model.state_dict()))
        if own is None:
            ctx.distil(inputs, targets, loss, self.params.student)
        return _to_groups(ctx)

    def _inputs(self, ctx: ServerContext, ensemble: Ensemble) -> Rows:
        """The proxy set; without one, images that the ensemble knows and the student does not."""
        if ctx.setting.public is not None:
            return ctx.setting.proxy
        how = self.params.generator
        objective = partial(objectives.dense, bn=how.bn, adversarial=how.adversarial)
        with ctx.clock.phase("synthesise", how.batches) as advance:
            made = []
            for number in range(1, how.batches + 1):
                made.append(synthesised(ctx, ensemble, objective, how, number))
                advance()
        ctx.generated = Samples(concat([m.x for m in made]), torch.cat([m.y for m in made]))
        return ctx.generated.x


def _groups(setting: Setting) -> list[ModelSpec]:
    """The clients' distinct architectures, in the order of the configuration."""
    models = setting.experiment.clients.models[: setting.clients]
    return [model for i, model in enumerate(models) if model not in models[:i]]


def _students_group(setting: Setting) -> ModelSpec | None:
    """The group whose fused model is the student; none if it is unlike them, or sees less."""
    student, alike = setting.experiment.student.model, setting.seen is None and not setting.views
    return student if alike and student in _groups(setting) else None


def _fused(ctx: ServerContext, spec: ModelSpec) -> dict[str, Tensor]:
    """The group's model as the last round left it."""
    return group(f"group/{spec}", ctx.state)


def _average(ctx: ServerContext, spec: ModelSpec, uploads: Uploads) -> dict[str, Tensor]:
    """The average over the group's clients; where none answered, the group's model as it was."""
    client_model = ctx.setting.experiment.client_model
    members = {client: each for client, each in uploads.items() if client_model(client) == spec}
    if not members:
        return _fused(ctx, spec)
    models = [group("model", upload) for upload in members.values()]
    return ctx.average(members, models, ctx.counts(members, "count").tolist())


def _to_groups(ctx: ServerContext) -> Broadcast:
    groups, own = _groups(ctx.setting), ctx.setting.of_client(0)
    sent = {str(s): own.sent(s, _fused(ctx, s)) for s in groups}
    return Broadcast(by_model={name: prefixed("model", each) for name, each in sent.items()})
