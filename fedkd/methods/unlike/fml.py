"""Federated mutual learning: a model of one's own, and one that goes round."""

from functools import partial

from pydantic import Field
from torch import Tensor, nn

from fedkd.config import Frozen
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import (
    Broadcast,
    PostProcessing,
    Tensors,
    Upload,
    group,
    values,
)
from fedkd.learning import evaluate
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.methods.core.recipes import average_by_count, expected_in_sum, hand_out, with_count
from fedkd.models import call, weights
from fedkd.privacy.events import Unprotected
from fedkd.rows import Rows
from fedkd.tasks import Likelihood


class FMLParams(Frozen):
    """FML's own parameters."""

    alpha: float = Field(default=0.5, ge=0, le=1)
    """The share of labels in what the client's own model learns from; the rest is the meme's."""
    beta: float = Field(default=0.5, ge=0, le=1)
    """The share of labels in what the meme learns from; the rest is the own model's."""


class FML(Method):
    """Each client's own model and a meme, which is the student, teach each other.

    Shen et al. 2020, arXiv:2006.16765.

    The own model never leaves; memes are averaged by example count, and each round begins with the
    average. Nothing but the meme, which is the student's model, need be alike.
    """

    card = Card(
        paper="Shen et al. 2020, arXiv:2006.16765",
        sends="its copy of the student, and its example count",
        needs="the student's model at all clients, beside a model of each client's own",
        returns="the averaged student",
        counts=("example count",),
        summable=True,
        combines=("models",),
        no_dp="two models learn from each other on private data at once, and DP-SGD protects the "
        "training of one",
    )
    Params = FMLParams
    params: FMLParams

    def expects(self, setting: Setting, client: int) -> Expected:
        student = setting.model_specs(setting.experiment.student.model)
        expected = {**student, "count": setting.example_count}
        return expected_in_sum(expected) if setting.securely else expected

    def probe(self, setting: Setting, client: int, upload: Tensors, x: Rows) -> Tensor | None:
        return evaluate.answers(_meme(setting, upload), x)

    def begin(self, ctx: ServerContext) -> Broadcast:
        return hand_out(ctx)

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        meme, own = _meme(ctx.setting, broadcast), ctx.teacher
        learn = partial(
            mutual_loss,
            alpha=self.params.alpha,
            beta=self.params.beta,
            likelihood=ctx.setting.task.likelihood,
        )

        def loss(_: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            return learn(call.answer(own, x), call.answer(meme, x), y)

        ctx.fit(nn.ModuleList([own, meme]), (ctx.data.x, ctx.data.y), loss)
        student = ctx.setting.experiment.student.model
        sent = ctx.setting.sent(student, meme.state_dict())
        origin = PostProcessing(of=Unprotected("mutual training of two models"))
        return with_count(ctx, Upload(values("model", sent, origin)))

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        average_by_count(ctx, uploads)
        return self.begin(ctx)


def mutual_loss(
    own: Tensor, meme: Tensor, y: Tensor, *, alpha: float, beta: float, likelihood: Likelihood
) -> Tensor:
    """The sum of what two models minimise that learn from labels and from each other.

    For classes alpha * cross-entropy + (1 - alpha) * KL(meme || own) of the own model, and
    beta * cross-entropy + (1 - beta) * KL(own || meme) of the meme. No gradient reaches the partner
    in a divergence.

    Args:
        own: answers (N, *A).
        meme: answers (N, *A).
        y: targets (N, *T).
        alpha: in [0, 1].
        beta: in [0, 1].
        likelihood: of targets by answers.

    Returns:
        A scalar, in nats.
    """
    apart = partial(likelihood.divergence, temperature=1.0)
    of_own = alpha * likelihood.mean_nll(own, y) + (1 - alpha) * apart(own, meme.detach()).mean()
    of_meme = beta * likelihood.mean_nll(meme, y) + (1 - beta) * apart(meme, own.detach()).mean()
    return of_own + of_meme


def _meme(setting: Setting, given: Tensors) -> nn.Module:
    """The student's model with what a message has of it under `model/`."""
    meme = setting.build(setting.experiment.student.model, purpose="specification")
    weights.complete(meme, group("model", given))
    return meme
