"""Federated averaging, fine-tuned on the server without data."""

from functools import partial

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from fedkd.config import Frozen, Optimisation
from fedkd.data.types import Samples
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Broadcast, Tensors, Upload, group, prefixed
from fedkd.knowledge import label, synthetic
from fedkd.learning import optim
from fedkd.learning.consensus import average_logits, class_weights
from fedkd.learning.data_free.synthesis import draw_labels
from fedkd.learning.ensemble import Ensemble
from fedkd.learning.evaluate import evaluating
from fedkd.learning.loop import descend
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.methods.core.one_shot import check_images
from fedkd.methods.core.recipes import average_into_student, hand_out, train_received
from fedkd.models import call
from fedkd.models.generators import build_generator
from fedkd.tasks.bounded import OF_LOGITS


class FedFTGParams(Frozen):
    """FedFTG's own parameters; the defaults are the authors'."""

    iterations: int = Field(default=10, ge=1)
    """Batches of a round."""
    generator_steps: int = Field(default=1, ge=1)
    """Steps of the generator on a batch of noise."""
    student_steps: int = Field(default=5, ge=1)
    """Steps of the student on what the generator then makes of it."""
    batch_size: int = Field(default=50, ge=2)
    """Synthetic samples in a batch."""
    latent: int = Field(default=100, ge=1)
    """The length of the generator's input."""
    width: int = Field(default=64, ge=1)
    """The generator's channels before its last layer, twice as many before those."""
    learning_rate: float = Field(default=0.01, gt=0)
    """Of the generator, by Adam."""
    student_learning_rate: float = Field(default=0.01, gt=0)
    """Of the student, by plain SGD. The authors' 0.1 is before a loss divided by the classes."""
    decay: float = Field(default=0.998, gt=0, le=1)
    """By what both rates are multiplied each round."""
    classification: float = Field(default=1.0, ge=0)
    """The weight of the labels that the generator aims at."""
    diversity: float = Field(default=1.0, ge=0)
    """The weight of unlike noise giving unlike samples."""


class FedFTG(Method):
    """Federated averaging, after which a generator's hard samples teach the average.

    Zhang et al. 2022, arXiv:2203.09249.

    The generator, kept from round to round, makes samples of labels drawn by the counts of all
    clients, on which the average and the clients disagree; of a label's samples a client has the
    say by its share n_k^c / n^c of that class.
    """

    card = Card(
        paper="Zhang et al. 2022, arXiv:2203.09249",
        sends="its model and its class counts",
        needs="equal models at all clients and the server; images",
        returns="the averaged model, fine-tuned",
        asks=("classes", "image"),
        unlike_models=False,
        counts=("class counts",),
        combines=("answers", "models"),
    )
    Params = FedFTGParams
    params: FedFTGParams

    def check(self, setting: Setting) -> None:
        check_images(setting)

    def expects(self, setting: Setting, client: int) -> Expected:
        return setting.model_and_class_counts(client)

    def begin(self, ctx: ServerContext) -> Broadcast:
        return hand_out(ctx)

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        train_received(ctx, broadcast)
        return ctx.model_and_class_counts()

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        counts, sizes = ctx.counts(uploads, "counts"), ctx.sizes(uploads, "counts")
        average_into_student(ctx, uploads, sizes)
        with Ensemble(list(ctx.load_teachers(uploads).values()), threads=ctx.threads) as ensemble:
            ctx.measure_ensemble(ensemble.answer)
            self._fine_tune(ctx, ensemble, counts)
        return self.begin(ctx)

    def _fine_tune(self, ctx: ServerContext, ensemble: Ensemble, counts: Tensor) -> None:
        params, rng, generator = self.params, ctx.rng("synthesis"), self._generator(ctx)
        weights, total = class_weights(counts.float()), counts.sum(dim=0)
        making = self._rate(ctx, params.learning_rate, "adam")
        learning = self._rate(ctx, params.student_learning_rate, "sgd")
        with (
            ctx.on_device(ctx.student, generator),
            ctx.clock.phase("synthesise and distil", params.iterations) as advance,
        ):
            maker = optim.build(generator.parameters(), making)
            learner = optim.build(ctx.student.parameters(), learning)
            for _ in range(params.iterations):
                drawn = draw_labels(total, params.batch_size, rng)
                y, shares = drawn.to(ctx.device), weights[:, drawn].to(ctx.device)
                z = torch.randn(params.batch_size, params.latent, generator=rng).to(ctx.device)
                loss = partial(self._aim, ctx, generator, ensemble, z, y, shares)
                for _ in range(params.generator_steps):
                    descend(maker, loss, making, 0.0)
                with evaluating(generator), torch.no_grad():
                    x = generator(z, y).contiguous()
                loss = partial(_lesson, ctx.student, x, *_voices(ctx, ensemble.logits(x), shares))
                ctx.student.train()
                for _ in range(params.student_steps):
                    ctx.losses["distil"] = descend(learner, loss, learning, 0.0)
                ctx.student.eval()
                advance()
        ctx.generated = Samples(x.cpu(), drawn)
        ctx.state.update(prefixed("generator", generator.state_dict()))

    def _generator(self, ctx: ServerContext) -> nn.Module:
        """The generator as the last round left it, or fresh."""
        generator = build_generator(
            ctx.setting.shape,
            latent=self.params.latent,
            width=self.params.width,
            classes=ctx.setting.classes,
            generator=ctx.rng("generator"),
        )
        if kept := group("generator", ctx.state):
            generator.load_state_dict(kept)
        return generator

    def _rate(self, ctx: ServerContext, rate: float, optimiser: str) -> Optimisation:
        decayed = rate * self.params.decay ** (ctx.round - 1)
        table = {"optimiser": optimiser, "learning_rate": decayed, "momentum": 0.0}
        return Optimisation.model_validate(table)

    def _aim(
        self,
        ctx: ServerContext,
        generator: nn.Module,
        ensemble: Ensemble,
        z: Tensor,
        y: Tensor,
        weights: Tensor,
    ) -> Tensor:
        """What a step of the generator minimises; gradients go through clients and student."""
        generator.train()
        x = generator(z, y)
        teachers, weights = _voices(ctx, ensemble.observe(x).logits, weights)
        with evaluating(ctx.student):
            hard = discrepancy(call.answer(ctx.student, x), teachers, weights)
        right = classification(teachers, y, weights)
        return (
            self.params.classification * right.mean()
            - hard.mean()
            + self.params.diversity * synthetic.diversity(z, x)
        )


def _voices(ctx: ServerContext, teachers: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (K, N, C) and weights (K, N): of all clients, or of what a rule makes of them."""
    if not ctx.ruled:
        return teachers, weights
    together = ctx.hearing(average_logits, OF_LOGITS)(teachers)
    return together[None], torch.ones_like(weights[:1])


def discrepancy(student: Tensor, teachers: Tensor, weights: Tensor) -> Tensor:
    """sum_k w_k KL(teacher k || student) in nats, per sample; gradients reach all.

    Args:
        student: logits (N, C).
        teachers: logits (K, N, C).
        weights: what each teacher's word weighs for each sample, (K, N).

    Returns:
        (N,), at least 0.
    """
    each = [label.kd(student, teacher, temperature=1.0) for teacher in teachers]
    return (weights * torch.stack(each)).sum(dim=0)


def classification(teachers: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """sum_k w_k cross-entropy of teacher k with the labels (N,), per sample; as `discrepancy`."""
    each = [F.cross_entropy(teacher, y, reduction="none") for teacher in teachers]
    return (weights * torch.stack(each)).sum(dim=0)


def _lesson(student: nn.Module, x: Tensor, teachers: Tensor, weights: Tensor) -> Tensor:
    """What a step of the student minimises, on images as they are."""
    return discrepancy(call.answer(student, x), teachers, weights).mean()
