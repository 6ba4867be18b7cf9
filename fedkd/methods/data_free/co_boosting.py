"""One-shot distillation in which samples and the ensemble's weights improve each other."""

from functools import partial

from pydantic import Field

from fedkd.config import Optimisation
from fedkd.data.types import Samples
from fedkd.knowledge import label
from fedkd.learning.data_free import co_boosting, objectives
from fedkd.learning.ensemble import Ensemble
from fedkd.learning.loop import OnEpoch
from fedkd.methods.core.base import Card, ServerContext
from fedkd.methods.core.one_shot import OneShot, PoolParams, Synthesis, synthesised


class CoBoostingParams(Synthesis, PoolParams):
    """Co-Boosting's own parameters; the defaults are the authors'.

    The student's learning rate falls by a cosine from epoch to epoch.
    """

    batch_size: int = Field(default=128, ge=2)
    """Synthetic samples in a batch."""
    adversarial: float = Field(default=1.0, ge=0)
    """The weight of the disagreement between ensemble and student."""
    adversarial_temperature: float = Field(default=3.0, gt=0)
    """The temperature of that disagreement."""
    perturbation: float = Field(default=8 / 255, ge=0)
    """How far each pixel moves before the student sees it; pixels are in [0, 1]."""
    weight_step: float = Field(default=0.01, ge=0)
    """How far a client's weight moves in a step."""
    weight_step_decay: float = Field(default=0.99, gt=0, le=1)
    """By what that step is multiplied each epoch."""
    temperature: float = Field(default=4.0, gt=0)
    """The distillation temperature."""
    student_weight_decay: float = Field(default=1e-4, ge=0)
    """Of the student's weights."""

    @property
    def distillation(self) -> Optimisation:
        """How the student is fitted."""
        own = {"weight_decay": self.student_weight_decay, "schedule": "cosine"}
        return super().distillation.model_copy(update=own)


class CoBoosting(OneShot):
    """Clients send models once; hard samples teach the student, and weigh the clients.

    Dai et al. 2024, arXiv:2402.15070.

    For each batch a fresh generator looks for samples that are hard for the ensemble and on which
    the student disagrees with it. On those so far each client's weight takes signed steps towards
    the labels that were aimed at, and the student learns from samples that are perturbed anew.
    """

    card = Card(
        paper="Dai et al. 2024, arXiv:2402.15070",
        sends="its model, once",
        needs="images; no data is shared",
        returns="nothing",
        asks=("classes", "image"),
        one_shot=True,
    )
    Params = CoBoostingParams
    params: CoBoostingParams

    def distil(self, ctx: ServerContext, ensemble: Ensemble, on_epoch: OnEpoch) -> Samples:
        params = self.params
        objective = partial(
            objectives.co_boosting,
            adversarial=params.adversarial,
            temperature=params.adversarial_temperature,
        )
        pool = co_boosting.train(
            ctx.student,
            ensemble,
            lambda epoch: synthesised(ctx, ensemble, objective, params, epoch),
            partial(label.kd, temperature=params.temperature),
            params.distillation,
            lambda epoch: ctx.rng(f"distillation-{epoch}"),
            perturbation=params.perturbation,
            weight_step=params.weight_step,
            weight_step_decay=params.weight_step_decay,
            on_epoch=on_epoch,
        )
        ctx.measure_ensemble(ensemble.answer)  # as its weights are now
        return pool
