"""What data-free methods share: clients send their models, the server makes up what teaches."""

from collections.abc import Callable

from pydantic import Field
from torch import Tensor, nn

from fedkd.config import Frozen, Optimisation
from fedkd.data.types import Samples
from fedkd.errors import ConfigError
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Broadcast, Tensors, Upload
from fedkd.learning.consensus import average_logits
from fedkd.learning.data_free.synthesis import Objective, Synthetic, synthesise
from fedkd.learning.ensemble import Ensemble
from fedkd.learning.loop import OnEpoch
from fedkd.methods.core.base import ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.models.generators import build_generator
from fedkd.tasks.bounded import OF_LOGITS


class Synthesis(Frozen):
    """How a fresh generator is fitted to make one batch; the defaults are DENSE's."""

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


class StudentParams(Frozen):
    """How long and how fast the student learns."""

    epochs: int = Field(default=200, ge=1)
    """Of the student, each on what the server makes up for it."""
    student_learning_rate: float = Field(default=0.01, gt=0)
    """Of the student, by SGD with momentum 0.9."""


class PoolParams(StudentParams):
    """As above, where each epoch is a pass over a pool to which a batch was added."""

    student_batch_size: int = Field(default=128, ge=1)
    """Samples in a batch of distillation."""

    @property
    def distillation(self) -> Optimisation:
        """How the student is fitted."""
        return Optimisation(
            epochs=self.epochs,
            batch_size=self.student_batch_size,
            learning_rate=self.student_learning_rate,
        )


class OneShot(Method):
    """Clients train once and send their models; `distil` is the method's own."""

    params: StudentParams

    @property
    def bn(self) -> float:
        """The weight of the distance to the teachers' BatchNorm statistics: none here."""
        return 0.0

    def check(self, setting: Setting) -> None:
        check_images(setting)
        check_statistics(setting, "method.bn", self.bn)

    def expects(self, setting: Setting, client: int) -> Expected:
        return setting.model_specs(setting.experiment.client_model(client))

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        ctx.train()
        return ctx.model()

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        returned = self.start(ctx, uploads)
        teachers, average = self.teachers(ctx, uploads), self.consensus(ctx, uploads)
        with Ensemble(teachers, threads=ctx.threads, average=average) as ensemble:
            ctx.measure_ensemble(ensemble.answer)
            with (
                ctx.on_device(ctx.student),
                ctx.clock.phase("synthesise and distil", self.params.epochs) as advance,
            ):

                def on_epoch(_epoch: int, loss: float) -> None:
                    ctx.losses["distil"] = loss
                    ctx.measure()
                    advance()

                ctx.generated = self.distil(ctx, ensemble, on_epoch)
        return returned

    def start(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        """Give `ctx.student` the weights that it starts from; as it stands, its own fresh ones.

        Returns:
            What goes to the clients, where rounds follow; as it stands, nothing.
        """
        return Broadcast()

    def teachers(self, ctx: ServerContext, uploads: Uploads) -> list[nn.Module]:
        """Who answers, on the server's device: the clients' models."""
        return list(ctx.load_teachers(uploads).values())

    def consensus(
        self,
        ctx: ServerContext,
        uploads: Uploads,
    ) -> Callable[[Tensor], Tensor]:
        """How the ensemble's answer comes of theirs: as it stands, the mean of logits."""
        return ctx.hearing(average_logits, OF_LOGITS)

    def distil(self, ctx: ServerContext, ensemble: Ensemble, on_epoch: OnEpoch) -> Samples:
        """Teach `ctx.student`, which is on the device, what the ensemble knows.

        Returns:
            What it was taught with, on the CPU.
        """
        raise NotImplementedError


def synthesised(
    ctx: ServerContext, ensemble: Ensemble, objective: Objective, how: Synthesis, number: int
) -> Synthetic:
    """The batch of a fresh generator against the student as it is, from streams of `number`."""
    generator = build_generator(
        ctx.setting.shape,
        latent=how.latent,
        width=how.width,
        generator=ctx.rng(f"generator-{number}"),
    )
    with ctx.on_device(ctx.student, generator):
        return synthesise(
            generator,
            ensemble,
            ctx.student,
            objective,
            classes=ctx.setting.classes,
            steps=how.steps,
            batch_size=how.batch_size,
            latent=how.latent,
            learning_rate=how.learning_rate,
            rng=ctx.rng(f"synthesis-{number}"),
        )


def check_images(setting: Setting) -> None:
    """Refuse to make up what is no image.

    Raises:
        ConfigError: the inputs are rows, or the task has no classes to make images of.
    """
    if "classes" not in setting.task.offers:
        raise ConfigError(
            f"method {setting.experiment.method.name!r} makes up images of classes, and task "
            f"{setting.task.name!r} has none: add a section [data.public], or choose a method "
            "that generates nothing"
        )
    if len(setting.shape) != 3:
        raise ConfigError(
            f"method {setting.experiment.method.name!r} cannot generate inputs of shape "
            f"{setting.shape}: expected images (channels, height, width); for rows of features "
            "choose a method with a proxy set"
        )


def check_statistics(setting: Setting, key: str, weight: float) -> None:
    """Refuse to read BatchNorm statistics that nobody paid for.

    Raises:
        ConfigError: differential privacy, and `weight`, which stands under `key`, is not 0.
    """
    if setting.experiment.privacy.unit != "none" and weight > 0:
        raise ConfigError(
            f"{key} is {weight:g}: BatchNorm statistics are facts about private data that no noise "
            "covers, so under differential privacy expected 0"
        )
