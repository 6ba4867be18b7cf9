"""One-shot distillation without data."""

from collections.abc import Callable
from functools import partial
from typing import Literal

from pydantic import Field
from torch import Tensor

from fedkd.data.types import Samples
from fedkd.knowledge import label
from fedkd.learning.consensus import average
from fedkd.learning.data_free import objectives
from fedkd.learning.data_free.synthesis import learn_from_pool
from fedkd.learning.ensemble import Ensemble
from fedkd.learning.loop import OnEpoch
from fedkd.methods.core.base import Card, ServerContext, Uploads
from fedkd.methods.core.one_shot import OneShot, PoolParams, Synthesis, synthesised
from fedkd.tasks.bounded import OF_LOGITS


class DenseParams(Synthesis, PoolParams):
    """DENSE's own parameters; the defaults are the paper's where it gives them.

    `bn` weighs the sum over a teacher's BatchNorm layers, averaged over teachers.
    """

    epochs: int = Field(default=40, ge=1)
    """Batches to synthesise; after each, the student passes once over all so far. Paper: 200."""
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


class Dense(OneShot):
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
        asks=("classes", "image"),
        one_shot=True,
        combines=("answers",),
    )
    Params = DenseParams
    params: DenseParams

    def consensus(self, ctx: ServerContext, uploads: Uploads) -> Callable[[Tensor], Tensor]:
        return ctx.hearing(partial(average, of=self.params.average), OF_LOGITS)

    @property
    def bn(self) -> float:
        return self.params.bn

    def distil(self, ctx: ServerContext, ensemble: Ensemble, on_epoch: OnEpoch) -> Samples:
        params = self.params
        objective = partial(objectives.dense, bn=params.bn, adversarial=params.adversarial)
        return learn_from_pool(
            ctx.student,
            ensemble,
            lambda epoch: synthesised(ctx, ensemble, objective, params, epoch),
            partial(label.kd, temperature=params.temperature),
            params.distillation,
            lambda epoch: ctx.rng(f"distillation-{epoch}"),
            threads=ctx.threads,
            on_epoch=on_epoch,
        )
