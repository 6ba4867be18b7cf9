"""Federated averaging of clients that do not forget what earlier stages taught."""

import torch
from pydantic import Field
from torch import Tensor

from fedkd.data.types import Samples
from fedkd.errors import ConfigError
from fedkd.exchange.messages import Broadcast, Tensors, Upload, group, prefixed
from fedkd.learning import retention
from fedkd.methods.core.base import Card, ClientContext, ServerContext, Setting
from fedkd.methods.fedavg import FedAvg, FedAvgParams
from fedkd.methods.memory import reminded
from fedkd.tasks.stages import Stages

_BEFORE = "before"
"""Under which the server hands out its model as the last stage left it."""


class FedLwFParams(FedAvgParams):
    """FedLwF's own parameters."""

    weight: float = Field(default=1.0, ge=0)
    """Of the distance from the answers of the server's model as the last stage left it."""
    temperature: float = Field(default=2.0, gt=0)
    """Of both models' answers; Li & Hoiem's."""
    exemplars: int = Field(default=0, ge=0)
    """How many of its records of earlier stages each client keeps and learns from again; a site's
    policy says how many it lets be kept."""


class FedLwF(FedAvg):
    """FedAvg whose clients are held to what the server's model said before the stage began.

    Learning without Forgetting (Li & Hoiem 2016, arXiv:1606.09282) in a federation, as FLwF of
    Usmanova et al. 2021, arXiv:2109.04197, whose teacher is each client's own last model.
    """

    card = Card(
        paper="compare Usmanova et al. 2021, arXiv:2109.04197",
        sends="its model and its example count",
        needs="equal models at all clients and the server, and data in stages ([data.stream])",
        returns="the averaged model, and that of before the stage",
        unlike_models=False,
        counts=("example count",),
        combines=("models",),
    )
    Params = FedLwFParams
    params: FedLwFParams

    def check(self, setting: Setting) -> None:
        super().check(setting)
        if setting.stages is None:
            raise ConfigError(
                "method 'fedlwf' keeps what earlier stages taught, and the data comes in none: add "
                "a section [data.stream], such as by = 'classes', stages = 5, or choose 'fedavg'"
            )
        setting.stages.check_exemplars(self.params.exemplars, setting.task, key="method.exemplars")
        protected = setting.experiment.privacy.unit == "record"
        if protected and setting.experiment.clients.training.augment:
            raise ConfigError(
                "clients.training.augment changes inputs, and under privacy.unit = 'record' the "
                "model before the stage answers to them as they are: leave it out, or choose "
                "'fedavg'"
            )
        if self.params.exemplars and protected:
            raise ConfigError(
                f"method.exemplars is {self.params.exemplars}: they are chosen by comparing "
                "records with each other, which nothing pays for under privacy.unit = 'record'; "
                "leave it out"
            )

    def begin(self, ctx: ServerContext) -> Broadcast:
        stages, student = _stages(ctx.setting), super().begin(ctx).common
        if ctx.round and stages.at(ctx.round + 1) > stages.at(ctx.round):
            # Copies: the student learns on in the very same tensors.
            left = {name: each.clone() for name, each in group("model", student).items()}
            ctx.state.update(prefixed(_BEFORE, left))
        return Broadcast(common={**student, **prefixed(_BEFORE, group(_BEFORE, ctx.state))})

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        stages = _stages(ctx.setting)
        stage = stages.at(ctx.round)
        own, task = self.params, ctx.setting.task
        start = self._start(ctx, broadcast)
        before = ctx.setting.build(ctx.spec, purpose="specification").eval()
        earlier = self._shared(prefixed("model", group(_BEFORE, broadcast)))
        before.load_state_dict({**start, **group("model", earlier)})
        samples = reminded(ctx, before, own.exemplars) if own.exemplars else None
        ctx.train_beside(
            before,
            retention.terms(stages, task, stage, weight=own.weight, temperature=own.temperature),
            retention.likelihood(stages, task, _counts(ctx, stages, stage, samples)),
            samples,
        )
        return Upload({**self._shared(ctx.model().values), "count": ctx.example_count()})


def _stages(setting: Setting) -> Stages:
    if setting.stages is None:
        raise ValueError("Expected data in stages; `check` refuses what has none.")
    return setting.stages


def _counts(ctx: ClientContext, stages: Stages, stage: int, samples: Samples | None) -> Tensor:
    """How many records of each class are learned from; where they are protected, which classes."""
    if stages.of_class is None:
        return torch.zeros(0)
    if ctx.allowance is not None:
        return (stages.of_class == stage).long()
    learned = ctx.data if samples is None else samples
    return torch.bincount(learned.y, minlength=len(stages.of_class))
