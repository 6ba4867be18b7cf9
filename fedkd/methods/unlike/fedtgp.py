"""Prototypes that the server trains apart from each other."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from fedkd.config import Optimisation
from fedkd.exchange.codec import Expected
from fedkd.exchange.coding.fields import AnswerField
from fedkd.exchange.messages import Broadcast, Tensors, Upload, group, prefixed
from fedkd.learning import loop
from fedkd.learning.teacher_statistics import feature_width
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.methods.fedproto import check_widths, class_means, prototype_loss
from fedkd.methods.unlike import prototypes, proxy_student
from fedkd.methods.unlike.proxy_student import ProxyStudentParams
from fedkd.rng import torch_default
from fedkd.rows import Rows

_EXACT = "donot_use_mm_for_euclid_dist"
"""Without a matrix product, whose rounding may leave a distance the root of less than nothing."""


class FedTGPParams(ProxyStudentParams):
    """FedTGP's own parameters; the defaults are those of the authors' script."""

    weight: float = Field(default=10.0, ge=0)
    """The weight of the mean squared distance to the global prototypes: lambda."""
    margin: float = Field(default=100.0, ge=0)
    """The most that a prototype is held off from those of other classes: tau."""
    prototypes: Optimisation = Optimisation(
        epochs=100, batch_size=10, learning_rate=0.01, momentum=0.0
    )
    """How the server trains the global prototypes on a round's."""


class FedTGP(Method):
    """The server trains one prototype a class, near to the clients' and far from other classes'.

    Zhang et al. 2024, arXiv:2401.03230.

    A mean of clients' prototypes lies nearer to those of other classes than they do themselves. So
    the global ones are learned, by a contrastive loss whose margin is the largest distance of two
    classes' mean prototypes, and at most tau. Clients learn as in FedProto. Ours: the student,
    distilled from clients' logits on a proxy set; and a class that nobody has held yet is neither
    told apart nor told to clients.
    """

    card = Card(
        paper="Zhang et al. 2024, arXiv:2401.03230",
        sends="the mean feature of each class of its records, and logits on the proxy set",
        needs="models whose last features are equally wide, and a proxy set",
        returns="one trained prototype a class",
        asks=("classes",),
        needs_public=True,
        announces=True,
        combines=("answers",),
        no_dp=prototypes.NO_DP,
    )
    Params = FedTGPParams
    params: FedTGPParams

    def check(self, setting: Setting) -> None:
        check_widths(setting)

    def expects(self, setting: Setting, client: int) -> Expected:
        return {**prototypes.expected(setting, client), **proxy_student.expected(setting)}

    def answers(self, setting: Setting) -> Mapping[str, AnswerField]:
        return proxy_student.answer_fields(setting)

    def said(self, ctx: ServerContext, uploads: Uploads, inputs: Callable[[], Rows]) -> Tensor:
        return proxy_student.said(uploads)

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        classes = ctx.setting.classes
        known = broadcast.get("known", torch.zeros(classes, dtype=torch.bool))
        none = torch.zeros(classes, feature_width(ctx.teacher))
        loss = partial(
            prototype_loss,
            prototypes=broadcast.get("prototypes", none),
            known=known,
            weight=self.params.weight,
        )
        ctx.fit(ctx.teacher, (ctx.data.x, ctx.data.y), loss)
        return Upload({**prototypes.sent(ctx), **proxy_student.answers(ctx)})

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        means, y = prototypes.rows(ctx, uploads)
        held = torch.bincount(y, minlength=ctx.setting.classes) > 0
        known = held | ctx.state.get("known", torch.zeros_like(held))
        trained = _trainable(ctx, means.shape[1])
        if len(y):  # or nobody says that it holds any
            self._learn(ctx, trained, means, y, known)
        ctx.state.update(known=known, **prefixed("trained", trained.state_dict()))
        with torch.no_grad():
            told = torch.where(known[:, None], trained(), 0.0)
        broadcast = ctx.announce(Broadcast(common={"prototypes": told, "known": known}))
        proxy_student.distil(ctx, uploads, self.params)
        return broadcast

    def _learn(
        self, ctx: ServerContext, trained: nn.Module, means: Tensor, y: Tensor, known: Tensor
    ) -> None:
        """Train the global prototypes on clients' (M, F), of classes (M,)."""
        how, away = self.params.prototypes, margin(means, y, most=self.params.margin)

        def loss(model: nn.Module, rows: Tensor, classes: Tensor) -> Tensor:
            return contrastive(rows, classes, model(), known=known, margin=away)

        with ctx.on_device(trained), ctx.clock.phase("train prototypes", how.epochs) as advance:
            losses = loop.fit(
                trained,
                (means, y),
                loss,
                how,
                ctx.rng("prototypes"),
                on_epoch=lambda *_: advance(),
            )
        ctx.losses["prototypes"] = losses[-1]


class TrainablePrototypes(nn.Module):
    """A vector a class, (C, F), passed through a network of one hidden layer."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(classes, width))
        self.network = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self) -> Tensor:
        """The prototypes, (C, F)."""
        found: Tensor = self.network(self.vectors)
        return found


def margin(means: Tensor, y: Tensor, *, most: float) -> float:
    """How far prototypes are held off from other classes: the largest distance of two classes.

    Of a class it is the mean over clients that counts: equation 9 of arXiv:2401.03230. The authors'
    code has the largest distance to the nearest class in its place.

    Args:
        means: clients' prototypes (M, F).
        y: their classes (M,).
        most: the largest margin, tau.
    """
    counts = torch.bincount(y)
    centres = class_means(means, y, len(counts))[counts > 0]
    return min(float(torch.cdist(centres, centres, compute_mode=_EXACT).max()), most)


def contrastive(
    rows: Tensor, y: Tensor, prototypes: Tensor, *, known: Tensor, margin: float
) -> Tensor:
    """Cross-entropy of minus the distances from all prototypes, a row's own farther by a margin.

    Args:
        rows: clients' prototypes (N, F).
        y: their classes (N,), all known.
        prototypes: the global ones (C, F).
        known: bool (C,), of which classes there are any.
        margin: at least 0.

    Returns:
        (N,), in nats.
    """
    distances = torch.cdist(rows, prototypes, compute_mode=_EXACT)
    farther = distances + margin * F.one_hot(y, len(prototypes))
    logits = (-farther).masked_fill(~known.to(rows.device), -torch.inf)
    return F.cross_entropy(logits, y, reduction="none")


def _trainable(ctx: ServerContext, width: int) -> TrainablePrototypes:
    """The global prototypes as the last round left them, or fresh."""
    with torch_default(ctx.rng("first prototypes")):
        trained = TrainablePrototypes(ctx.setting.classes, width)
    if kept := group("trained", ctx.state):
        trained.load_state_dict(kept)
    return trained
