"""Federated averaging with a generator of features that clients learn from too."""

from collections.abc import Sequence
from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from fedkd.config import Frozen, Optimisation
from fedkd.errors import ConfigError
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Broadcast, Tensors, Upload, group, prefixed
from fedkd.learning import optim
from fedkd.learning.consensus import class_weights
from fedkd.learning.data_free.generated_features import client_loss, generator_loss
from fedkd.learning.data_free.synthesis import draw_labels
from fedkd.learning.loop import descend
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.methods.core.recipes import average_into_student, hand_out, receive, train_received
from fedkd.models import Head, head
from fedkd.models.generators import FeatureGenerator, build_feature_generator
from fedkd.models.heads import sizes


class FedGenParams(Frozen):
    """FedGen's own parameters; the defaults are the authors' for MNIST."""

    steps: int = Field(default=50, ge=1)
    """Steps of the generator in a round."""
    batch_size: int = Field(default=32, ge=2)
    """Features in a batch of the generator."""
    latent: int = Field(default=32, ge=1)
    """The length of the generator's noise."""
    hidden: int = Field(default=256, ge=1)
    """Units of the generator's hidden layer."""
    learning_rate: float = Field(default=3e-4, gt=0)
    """Of the generator, by Adam."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Of the generator's weights."""
    diversity: float = Field(default=1.0, ge=0)
    """The weight of unlike noise giving unlike features."""
    classification: float = Field(default=10.0, ge=0)
    """The clients' weight of being right on generated features."""
    distillation: float = Field(default=10.0, ge=0)
    """The clients' weight of saying on data what they say on features of its labels."""
    decay: float = Field(default=0.98, gt=0, le=1)
    """By what both weights, and the generator's rate, are multiplied each round."""


class FedGen(Method):
    """Federated averaging in which a generator of features carries what all clients know.

    Zhu et al. 2021, arXiv:2105.10056.

    On the server a generator learns features, from noise and a label, for which the clients' last
    layers give that label; of a label a client has the say by its share n_k^c / n^c of the class.
    From the second round on clients learn from the generator beside their own data.
    """

    card = Card(
        paper="Zhu et al. 2021, arXiv:2105.10056",
        sends="its model and its class counts",
        needs="equal models, whose last layer is linear, at all clients and the server",
        returns="the averaged model, the generator, and the class counts of all",
        asks=("classes",),
        unlike_models=False,
        counts=("class counts",),
        combines=("models",),
        no_dp="clients learn from generated features beside their records, by a loss that DP-SGD "
        "does not cover",
    )
    Params = FedGenParams
    params: FedGenParams

    def check(self, setting: Setting) -> None:
        spec = setting.experiment.student.model
        _, outputs = sizes(head(setting.build(spec, purpose="specification")))
        if outputs != setting.classes:
            raise ConfigError(
                f"student.model is {str(spec)!r}, whose last linear layer has "
                f"{outputs} outputs: method 'fedgen' feeds features to the layer that "
                f"makes the logits, so expected {setting.classes}"
            )

    def expects(self, setting: Setting, client: int) -> Expected:
        return setting.model_and_class_counts(client)

    def begin(self, ctx: ServerContext) -> Broadcast:
        return hand_out(ctx)

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        if known := group("generator", broadcast):
            decay = self.params.decay ** (ctx.round - 1)
            generator = self._generator(ctx, known).eval()
            loss = partial(
                client_loss,
                generator=generator,
                counts=broadcast["counts"],
                classification=decay * self.params.classification,
                distillation=decay * self.params.distillation,
                rng=ctx.rng("features"),
            )
            receive(ctx, broadcast)
            with ctx.on_device(generator):
                ctx.fit(ctx.teacher, (ctx.data.x, ctx.data.y), loss)
        else:
            train_received(ctx, broadcast)
        return ctx.model_and_class_counts()

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        counts = ctx.counts(uploads, "counts")
        average_into_student(ctx, uploads, counts.sum(dim=1))
        generator = self._generator(ctx, group("generator", ctx.state))
        heads = [head(model) for model in ctx.load_teachers(uploads).values()]
        self._improve(ctx, generator, heads, counts)
        state = prefixed("generator", generator.state_dict())
        ctx.state.update(state)
        common = {**self.begin(ctx).common, **state, "counts": counts.sum(dim=0)}
        return Broadcast(common=common)

    def _generator(self, ctx: ClientContext | ServerContext, state: Tensors) -> FeatureGenerator:
        """The generator with this state; fresh where there is none."""
        params, setting = self.params, ctx.setting
        generator = build_feature_generator(
            setting.feature_width(setting.experiment.student.model),
            classes=setting.classes,
            latent=params.latent,
            hidden=params.hidden,
            generator=ctx.rng("generator"),
        )
        if state:
            generator.load_state_dict(state)
        return generator

    def _improve(
        self,
        ctx: ServerContext,
        generator: FeatureGenerator,
        heads: Sequence[Head],
        counts: Tensor,
    ) -> None:
        params, rng = self.params, ctx.rng("features")
        weights, total = class_weights(counts.float()), counts.sum(dim=0)
        how = Optimisation(
            optimiser="adam",
            learning_rate=params.learning_rate * params.decay ** (ctx.round - 1),
            weight_decay=params.weight_decay,
        )
        generator.train()
        with (
            ctx.on_device(generator),
            ctx.clock.phase("train the generator", params.steps) as advance,
        ):
            optimiser = optim.build(generator.parameters(), how)
            optim.unpack(optimiser, group("optimiser", ctx.state))
            for _ in range(params.steps):
                drawn = draw_labels(total, params.batch_size, rng)
                y, shares = drawn.to(ctx.device), weights[:, drawn].to(ctx.device)
                z = torch.randn(params.batch_size, params.latent, generator=rng).to(ctx.device)
                loss = partial(generator_loss, generator, heads, z, y, shares, params.diversity)
                ctx.losses["generator"] = descend(optimiser, loss, how, 0.0)
                advance()
        generator.eval()
        ctx.state.update(prefixed("optimiser", optim.pack(optimiser)))
