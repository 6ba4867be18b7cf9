"""A model of each client's own beside a small shared one, on features of both."""

from functools import partial

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from fedkd.config import Frozen
from fedkd.errors import ConfigError
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Broadcast, Tensors, Upload, group, values
from fedkd.learning import evaluate
from fedkd.learning.teacher_statistics import with_features
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.methods.core.recipes import average_by_count, expected_in_sum, hand_out, with_count
from fedkd.models import weights
from fedkd.models.heads import head, logits_of, sizes
from fedkd.rng import torch_default
from fedkd.rows import Rows

_KEPT = "personal"


class FedMRLParams(Frozen):
    """FedMRL's own parameters."""

    alone: float = Field(default=1.0, ge=0)
    """The weight of the small model's own cross-entropy, by which the average is a student; the
    paper has none, and so 0."""


class FedMRL(Method):
    """Features of an own and a shared model are mixed; the mix and a part of it tell classes.

    Yi et al. 2024, arXiv:2406.00488. The shared model is the student's; features are what enters a
    model's last linear layer. A client's matrix projects both models' features, side by side, to as
    many as its own model has. Of these all enter its own last layer, and the first, as many as the
    shared model has, the shared one's (Matryoshka): the client learns by the sum of both
    cross-entropies. The shared model travels and is averaged by example count; own model and matrix
    stay, and the three together are what is scored as the client's.

    The paper ends with the clients' three together, and the shared model's last layer has never
    seen its own features. That it also learns alone, to be a student, is ours.
    """

    card = Card(
        paper="Yi et al. 2024, arXiv:2406.00488",
        sends="the shared model and its example count",
        needs="the student's model at all clients, with no wider features than their own models'",
        returns="the averaged shared model",
        asks=("classes",),
        counts=("example count",),
        summable=True,
        combines=("models",),
        no_dp="two models and a matrix learn from a record together, by a loss that DP-SGD does "
        "not cover",
    )
    Params = FedMRLParams
    params: FedMRLParams

    def check(self, setting: Setting) -> None:
        student = setting.experiment.student.model
        shared = setting.feature_width(student)
        for spec in setting.experiment.clients.models:
            if (own := setting.feature_width(spec)) < shared:
                raise ConfigError(
                    f"student.model {str(student)!r} has {shared} features and clients.models "
                    f"{str(spec)!r} has {own}: method 'fedmrl' takes the shared model's from among "
                    "a client's own, so expected at most as many"
                )

    def expects(self, setting: Setting, client: int) -> Expected:
        models = setting.student.model_specs(setting.experiment.student.model)
        expected = {**models, "count": setting.example_count}
        return expected_in_sum(expected) if setting.securely else expected

    def probe(self, setting: Setting, client: int, upload: Tensors, x: Rows) -> Tensor:
        shared = setting.student.models.to_ask(setting.experiment.student.model)
        weights.complete(shared, group("model", upload))
        return evaluate.answers(shared, setting.students_view(x))

    def begin(self, ctx: ServerContext) -> Broadcast:
        return hand_out(ctx)

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        student = ctx.setting.experiment.student.model
        shared = ctx.setting.student.build(student, purpose="specification")
        weights.complete(shared, group("model", broadcast))
        own = ctx.setting.build(ctx.spec, purpose="teacher", client=ctx.client)
        mixed = Mixed(shared, own, ctx.rng("match"))
        if kept := group(_KEPT, ctx.state):
            mixed.load_state_dict({**mixed.state_dict(), **kept})
        ctx.fit(mixed, (ctx.data.x, ctx.data.y), partial(nested_loss, alone=self.params.alone))
        ctx.personal = mixed
        ctx.keep(
            _KEPT, {n: t for n, t in mixed.state_dict().items() if not n.startswith("shared.")}
        )
        sent = ctx.setting.sent(student, shared.state_dict())
        return with_count(ctx, Upload(values("model", sent, ctx.from_teacher)))

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        average_by_count(ctx, uploads)
        return hand_out(ctx)


class Mixed(nn.Module):
    """A shared and an own model whose features are mixed, as the client that has both uses them.

    Args:
        shared: with S features, the small model.
        own: with F >= S features.
        generator: draws the matrix that mixes them.
    """

    def __init__(self, shared: nn.Module, own: nn.Module, generator: torch.Generator) -> None:
        super().__init__()
        self.shared, self.own = shared, own
        self.least, width = sizes(head(shared))[0], sizes(head(own))[0]
        with torch_default(generator):
            self.match = nn.Linear(self.least + width, width)

    def all(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs (N, *shape) -> logits (N, C) of all features, of the first, of shared alone."""
        alone, small = with_features(self.shared, x)
        mix = self.match(torch.cat([small, with_features(self.own, x)[1]], dim=1))
        first = logits_of(head(self.shared), mix[:, : self.least])
        return logits_of(head(self.own), mix), first, alone

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (N, *shape) -> the logits (N, C) of all features."""
        return self.all(x)[0]


def nested_loss(model: Mixed, x: Tensor, y: Tensor, *, alone: float) -> Tensor:
    """Cross-entropy of all features + of the first + `alone` times of the shared model alone, (N,).

    Args:
        model: both models and what mixes them.
        x: inputs (N, *shape).
        y: labels (N,).
        alone: at least 0.
    """
    whole, first, shared = (F.cross_entropy(each, y, reduction="none") for each in model.all(x))
    return whole + first + alone * shared
