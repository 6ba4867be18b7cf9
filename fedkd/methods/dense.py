"""One-shot distillation without data."""

from functools import partial
from typing import Literal

from pydantic import Field

from fedkd.config import Frozen, Optimisation
from fedkd.errors import ConfigError
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Broadcast, Tensors, Upload
from fedkd.knowledge import label
from fedkd.learning.data_free import Synthetic, dense_objective, learn_from_pool, synthesise
from fedkd.learning.multi_teacher import Ensemble
from fedkd.methods.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.models.generators import build_generator


class DenseParams(Frozen):
    """DENSE's own parameters; the defaults are the paper's where it gives them.

    `bn` weighs the sum over a teacher's BatchNorm layers, averaged over teachers.
    """

    epochs: int = Field(default=40, ge=1)
    """Batches to synthesise; after each, the student passes once over all so far. Paper: 200."""
    steps: int = Field(default=30, ge=1)
    """Steps of the generator for one batch."""
    batch_size: int = Field(default=256, ge=2)
    """Synthetic samples in a batch."""
    latent: int = Field(default=256, ge=1)
    """The length of the generator's input."""
    width: int = Field(default=64, ge=1)
    """The generator's channels before its last layer, twice as many before those."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of the generator and its input."""
    bn: float = Field(default=1.0, ge=0)
    """The weight of the distance to the teachers' BatchNorm statistics."""
    adversarial: float = Field(default=1.0, ge=0)
    """The weight of the disagreement between ensemble and student."""
    average: Literal["logits", "probabilities"] = "logits"
    """Of what the ensemble's answer is the mean; the paper's is logits."""
    temperature: float = Field(default=20.0, gt=0)
    """The distillation temperature."""
    student_batch_size: int = Field(default=256, ge=1)
    """Samples in a batch of distillation."""
    student_learning_rate: float = Field(default=0.005, gt=0)
    """Of the student, by SGD with momentum 0.9."""


class Dense(Method):
    """Clients send models once; a generator makes the data that distils them.

    Zhang et al. 2022, arXiv:2112.12371.

    For each batch a fresh generator is fitted so that the ensemble is sure of the images, their
    features have the BatchNorm statistics of the teachers, and ensemble and student disagree.
    """

    card = Card(
        paper="Zhang et al. 2022, arXiv:2112.12371",
        sends="its model, once",
        needs="images; no data is shared",
        returns="nothing",
        one_shot=True,
    )
    Params = DenseParams
    params: DenseParams

    def check(self, setting: Setting) -> None:
        if len(setting.shape) != 3:
            raise ConfigError(
                f"method 'dense' cannot generate inputs of shape {setting.shape}: expected images "
                "(channels, height, width); for rows of features choose a method with a proxy set"
            )
        if setting.experiment.privacy.unit != "none" and self.params.bn > 0:
            raise ConfigError(
                f"method.bn is {self.params.bn:g}: BatchNorm statistics are facts about private "
                "data that no noise covers, so under differential privacy expected 0"
            )

    def expects(self, setting: Setting, client: int) -> Expected:
        return setting.model_specs(setting.experiment.client_model(client))

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        ctx.train()
        return ctx.model()

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        teachers = list(ctx.load_teachers(uploads).values())
        with Ensemble(teachers, threads=ctx.threads, average=self.params.average) as ensemble:
            ctx.measure_ensemble(ensemble.answer)
            with ctx.clock.phase("synthesise and distil", self.params.epochs) as advance:

                def on_epoch(_epoch: int, loss: float) -> None:
                    ctx.losses["distil"] = loss
                    ctx.measure()
                    advance()

                ctx.generated = learn_from_pool(
                    ctx.student,
                    ensemble,
                    lambda epoch: self._synthesise(ctx, ensemble, epoch),
                    partial(label.kd, temperature=self.params.temperature),
                    self._distillation,
                    lambda epoch: ctx.rng(f"distillation-{epoch}"),
                    on_epoch=on_epoch,
                )
        return Broadcast()

    @property
    def _distillation(self) -> Optimisation:
        return Optimisation(
            epochs=self.params.epochs,
            batch_size=self.params.student_batch_size,
            learning_rate=self.params.student_learning_rate,
        )

    def _synthesise(self, ctx: ServerContext, ensemble: Ensemble, epoch: int) -> Synthetic:
        generator = build_generator(
            ctx.setting.shape,
            latent=self.params.latent,
            width=self.params.width,
            classes=None,
            generator=ctx.rng(f"generator-{epoch}"),
        )
        return synthesise(
            generator,
            ensemble,
            ctx.student,
            partial(dense_objective, bn=self.params.bn, adversarial=self.params.adversarial),
            classes=ctx.setting.classes,
            steps=self.params.steps,
            batch_size=self.params.batch_size,
            latent=self.params.latent,
            learning_rate=self.params.learning_rate,
            rng=ctx.rng(f"synthesis-{epoch}"),
        )
