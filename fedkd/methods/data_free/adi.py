"""One-shot distillation by images made pixel by pixel."""

from fedkd.data.types import Samples
from fedkd.learning.data_free import adi
from fedkd.learning.ensemble import Ensemble
from fedkd.learning.loop import OnEpoch
from fedkd.methods.core.base import Card, ServerContext
from fedkd.methods.core.one_shot import OneShot, PoolParams


class ADIParams(adi.AdaptiveDeepInversion, PoolParams):
    """ADI's own parameters, with the clients' ensemble in place of its teacher.

    `bn` weighs the sum over a teacher's BatchNorm layers, averaged over teachers.
    """


class ADI(OneShot):
    """Clients send models once; images are optimised pixel by pixel to suit their ensemble.

    Yin et al. 2020, Adaptive DeepInversion, arXiv:1912.08795, with the mean of the clients' logits
    in place of the teacher, as Zhang et al. 2022, DENSE, arXiv:2112.12371, have it for comparison
    (Fed-ADI).

    Each epoch adds a batch on which the student, as it is, disagrees with the ensemble.
    """

    card = Card(
        paper="Yin et al. 2020, arXiv:1912.08795",
        sends="its model, once",
        needs="images; no data is shared",
        returns="nothing",
        asks=("classes", "image"),
        one_shot=True,
        combines=("answers",),
    )
    Params = ADIParams
    params: ADIParams

    @property
    def bn(self) -> float:
        return self.params.bn

    def distil(self, ctx: ServerContext, ensemble: Ensemble, on_epoch: OnEpoch) -> Samples:
        return adi.train(
            ctx.student,
            ensemble,
            self.params,
            self.params.distillation,
            ctx.rng,
            shape=ctx.setting.shape,
            classes=ctx.setting.classes,
            on_epoch=on_epoch,
        )
