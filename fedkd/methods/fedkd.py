"""A private mentor and a small shared mentee, and updates of low rank."""

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor, nn

from fedkd.config import Frozen
from fedkd.errors import ConfigError
from fedkd.exchange import low_rank
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import (
    Broadcast,
    PostProcessing,
    Tensors,
    Upload,
    Value,
    group,
)
from fedkd.knowledge import feature
from fedkd.learning import evaluate
from fedkd.learning.teacher_statistics import feature_width, with_features
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.methods.core.recipes import hand_out
from fedkd.models import weights
from fedkd.privacy.events import Unprotected
from fedkd.rng import torch_default
from fedkd.rows import Rows, whole
from fedkd.specs import TensorSpec
from fedkd.tasks import Likelihood
from fedkd.tasks.likelihoods.categorical import CATEGORICAL

_LEAST_TASK_LOSS = 1e-6
"""In nats: two models that are both sure are divided by this instead of by nothing."""


class FedKDParams(Frozen):
    """FedKD's own parameters."""

    energy_start: float = Field(default=0.95, gt=0, le=1)
    """The share of an update's energy that is sent in the first round: the paper's T_start."""
    energy_end: float = Field(default=0.98, gt=0, le=1)
    """The share in the last round, T_end; in between it changes linearly."""
    hidden: float = Field(default=1.0, ge=0)
    """The weight of the loss between features; the paper's is 1."""


class FedKD(Method):
    """Mentor and mentee teach each other; the mentee's update travels in few singular vectors.

    Wu et al. 2022, Nature Communications 13:2032, arXiv:2108.13323.

    The mentor is the client's own model and stays at home; the mentee is the student's. A round's
    update is what the client's training changed, not one gradient; it is averaged by example count.
    Of the paper's hidden losses there is the one on the last features, with a learned matrix; those
    on attention maps and embeddings suit transformers and are left out. A client that missed the
    last round receives the whole mentee. Privileged columns are for the mentor's eyes; the mentee,
    which is the student, learns of them by what the mentor answers.
    """

    card = Card(
        paper="Wu et al. 2022, arXiv:2108.13323",
        sends="the leading singular vectors of its mentee's update, and its example count",
        needs="the student's model at all clients, beside a model of each client's own",
        returns="the averaged update, cut to its leading singular vectors too",
        counts=("example count",),
        combines=("models",),
        schedule="the share of an update that is kept",
        privileged=True,
        no_dp="mentor and mentee learn from each other on private data, by weights that are means "
        "over a batch, so that no record's gradient stands alone",
    )
    Params = FedKDParams
    params: FedKDParams

    def check(self, setting: Setting) -> None:
        if setting.views or setting.shape == ():
            raise ConfigError(
                "method 'fedkd' trains the student at each client, from the records that the "
                "client's own model sees: let all see the same views (clients.views, "
                "student.views), or choose fedmd or dsfl"
            )
        for spec in setting.experiment.clients.models:
            feature_width(setting.build(spec, purpose="specification"))
        student = setting.experiment.student.model
        feature_width(setting.student.build(student, purpose="specification"))

    def expects(self, setting: Setting, client: int) -> Expected:
        specs = {"count": setting.example_count}
        for key, spec in setting.student.model_specs(setting.experiment.student.model).items():
            name = key.removeprefix("model/")
            if low_rank.most_rank(spec.shape):
                specs[f"factors/{name}"] = TensorSpec(
                    low_rank.factor_shape(spec.shape),
                    spec.dtype,
                    low=-low_rank.LARGEST,
                    high=low_rank.LARGEST,
                    fewer_rows=True,
                )
            else:
                specs[f"whole/{name}"] = spec
        return specs

    def probe(self, setting: Setting, client: int, upload: Tensors, x: Rows) -> Tensor | None:
        # On top of the first mentee, not the round's: what overflows does so on either.
        first = setting.student.build(setting.experiment.student.model, purpose="student")
        return _answers(setting, first, upload, x)

    def said(self, ctx: ServerContext, uploads: Uploads, inputs: Callable[[], Rows]) -> Tensor:
        x = inputs()
        return torch.stack([_answers(ctx.setting, ctx.student, u, x) for u in uploads.values()])

    def begin(self, ctx: ServerContext) -> Broadcast:
        return hand_out(ctx)

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        start = group("model", broadcast) or _moved(group("mentee", ctx.state), broadcast)
        ctx.keep("mentee", start)
        student = ctx.setting.experiment.student.model
        mentee = ctx.setting.student.build(student, purpose="specification")
        weights.complete(mentee, start)
        self._learn(ctx, mentee)
        update = _update(start, mentee.state_dict(), energy=self._energy(ctx.setting, ctx.round))
        origin = PostProcessing(of=Unprotected("mentor and mentee training"))
        sent = {name: Value(tensor, origin) for name, tensor in update.items()}
        return Upload({**sent, "count": ctx.example_count()})

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        start = _sent(ctx.setting, ctx.student)
        mentees = [_moved(start, upload) for upload in uploads.values()]
        averaged = ctx.average(uploads, mentees, ctx.counts(uploads, "count").tolist())
        update = _update(start, averaged, energy=self._energy(ctx.setting, ctx.round))
        # The student goes where the clients will be, not where the whole average is.
        weights.complete(ctx.student, _moved(start, update))
        whole = hand_out(ctx).common
        missed = [c for c in ctx.setting.cohort(ctx.round + 1) if c not in uploads]
        return Broadcast(common=update, by_client=dict.fromkeys(missed, whole))

    def _energy(self, setting: Setting, round: int) -> float:
        """The share of the energy that is kept in a round."""
        done = (round - 1) / max(1, setting.experiment.rounds - 1)
        return self.params.energy_start + done * (self.params.energy_end - self.params.energy_start)

    def _learn(self, ctx: ClientContext, mentee: nn.Module) -> None:
        mentor, match = ctx.teacher, _match(ctx, mentee)
        likelihood = ctx.setting.task.likelihood

        def loss(_: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            mentees_x = whole(ctx.setting.students_view(x))
            shown = with_features(mentor, x), with_features(mentee, mentees_x)
            return mutual(*shown, y, match, hidden=self.params.hidden, likelihood=likelihood)

        together = nn.ModuleList([mentor, mentee, match])
        ctx.fit(together, (ctx.data.x, ctx.data.y), loss)
        ctx.keep("match", match.state_dict())


Shown = tuple[Tensor, Tensor]
"""Answers (N, *A) and features (N, F)."""


def mutual(
    mentor: Shown,
    mentee: Shown,
    y: Tensor,
    match: nn.Module,
    *,
    hidden: float = 1.0,
    likelihood: Likelihood = CATEGORICAL,
) -> Tensor:
    """The sum of what mentor and mentee minimise; a scalar, in nats.

    Each has its negative log-likelihood and its divergence from the partner, for classes
    cross-entropy and KL(partner || own); both share the mean squared distance between the mentor's
    features and the matched ones of the mentee. All but the likelihoods is divided by the sum of
    both, so that they teach each other the more, the better they are. No gradient reaches the
    partner in a divergence, or anybody through the divisor.

    Args:
        mentor: what it shows of N inputs.
        mentee: what it shows of them.
        y: targets (N, *T).
        match: maps the mentee's features to the mentor's width.
        hidden: the weight of the distance between features.
        likelihood: of targets by answers.
    """
    task = likelihood.mean_nll(mentor[0], y) + likelihood.mean_nll(mentee[0], y)
    taught = likelihood.divergence(mentor[0], mentee[0].detach(), temperature=1.0).mean()
    own = likelihood.divergence(mentee[0], mentor[0].detach(), temperature=1.0).mean()
    matched = feature.hint(mentee[1], mentor[1], regressor=match).mean()
    return task + (taught + own + hidden * matched) / task.detach().clamp_min(_LEAST_TASK_LOSS)


def _sent(setting: Setting, mentee: nn.Module) -> dict[str, Tensor]:
    """What messages have of a mentee, as of any model that averages."""
    return setting.student.sent(setting.experiment.student.model, mentee.state_dict())


def _answers(setting: Setting, start: nn.Module, upload: Tensors, x: Rows) -> Tensor:
    """What a mentee answers that began as `start` and moved as an upload says."""
    mentee = setting.student.build(setting.experiment.student.model, purpose="specification")
    weights.complete(mentee, _moved(_sent(setting, start), upload))
    return evaluate.answers(mentee, setting.students_view(x))


def _match(ctx: ClientContext, mentee: nn.Module) -> nn.Module:
    """The learned matrix from the mentee's features to the mentor's; it stays at home."""
    with torch_default(ctx.rng("match")):
        match = nn.Linear(feature_width(mentee), feature_width(ctx.teacher), bias=False)
    if kept := group("match", ctx.state):
        match.load_state_dict(kept)
    return match


def _update(start: Tensors, end: Tensors, *, energy: float) -> dict[str, Tensor]:
    """How to come from one state dict to another: factors of what changed; small ones whole."""
    update = {}
    for name, before in start.items():
        if low_rank.most_rank(tuple(before.shape)):
            update[f"factors/{name}"] = low_rank.factorise(end[name] - before, energy=energy)
        else:
            update[f"whole/{name}"] = end[name].clone()
    return update


def _moved(start: Tensors, update: Tensors) -> dict[str, Tensor]:
    """The state dict that an update leads to."""
    factors, whole = group("factors", update), group("whole", update)
    return {
        name: before + low_rank.multiply(factors[name], tuple(before.shape))
        if name in factors
        else whole[name]
        for name, before in start.items()
    }
