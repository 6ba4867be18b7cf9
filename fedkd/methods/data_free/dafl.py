"""One-shot distillation by one generator that learns beside the student."""

from functools import partial

import torch
from pydantic import Field

from fedkd.config import Optimisation
from fedkd.data.types import Samples
from fedkd.knowledge import label
from fedkd.learning.data_free import dafl, objectives
from fedkd.learning.ensemble import Ensemble
from fedkd.learning.loop import OnEpoch
from fedkd.methods.core.base import Card, ServerContext
from fedkd.methods.core.one_shot import OneShot, StudentParams
from fedkd.models.generators import build_generator

_SHOWN = 256
"""Images of the finished generator that the run folder keeps."""


class DAFLParams(dafl.DataFreeLearning, StudentParams):
    """DAFL's own parameters, with the clients' ensemble in place of its teacher."""

    batch_size: int = Field(default=512, ge=2)
    """Synthetic samples in a batch."""


class DAFL(OneShot):
    """Clients send models once; a generator and the student take turns on fresh noise.

    Chen et al. 2019, arXiv:1904.01186, with the mean of the clients' logits in place of the
    teacher, as Zhang et al. 2022, DENSE, arXiv:2112.12371, have it for comparison (Fed-DAFL).

    The one generator is made to give images of which the ensemble is sure, which excite every
    teacher's features (the mean over teachers) and whose classes are balanced.
    """

    card = Card(
        paper="Chen et al. 2019, arXiv:1904.01186",
        sends="its model, once",
        needs="images; no data is shared",
        returns="nothing",
        asks=("classes", "image"),
        one_shot=True,
        combines=("answers",),
    )
    Params = DAFLParams
    params: DAFLParams

    def distil(self, ctx: ServerContext, ensemble: Ensemble, on_epoch: OnEpoch) -> Samples:
        params = self.params
        generator = build_generator(
            ctx.setting.shape,
            latent=params.latent,
            width=params.width,
            generator=ctx.rng("generator"),
        ).to(ctx.device)
        dafl.train(
            ctx.student,
            ensemble,
            generator,
            partial(objectives.dafl, activation=params.activation, entropy=params.entropy),
            partial(label.kd, temperature=params.temperature),
            Optimisation(
                epochs=params.epochs,
                batch_size=params.batch_size,
                learning_rate=params.student_learning_rate,
            ),
            ctx.rng("synthesis"),
            classes=ctx.setting.classes,
            steps=params.steps,
            latent=params.latent,
            learning_rate=params.learning_rate,
            on_epoch=on_epoch,
        )
        with torch.no_grad():
            z = torch.randn(_SHOWN, params.latent, generator=ctx.rng("shown"))
            x = generator(z.to(ctx.device)).contiguous().cpu()
        # An unconditional generator aims at no class: the ensemble says what it sees.
        return Samples(x, ensemble.answer(x).argmax(dim=-1))
