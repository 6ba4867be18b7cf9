"""Federated learning by class prototypes."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from fedkd.config import Frozen, Optimisation
from fedkd.errors import ConfigError
from fedkd.exchange.aggregation import by_class_shares, mean, mean_by_class
from fedkd.exchange.codec import Expected, half
from fedkd.exchange.coding.fields import AnswerField
from fedkd.exchange.messages import Broadcast, PostProcessing, Release, Tensors, Upload, Value
from fedkd.knowledge import label
from fedkd.learning.evaluate import evaluating
from fedkd.learning.teacher_statistics import feature_width, with_features
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.methods.core.sums import mean_of_parts, part_of_mean
from fedkd.privacy.events import Unprotected
from fedkd.rows import Rows, batches, device_of, one
from fedkd.specs import TensorSpec
from fedkd.tasks.bounded import OF_PROBABILITIES

LARGEST = 1e4
"""The most that an entry of a prototype may be."""
_FAR = 10.0
"""A prototype longer than this many times the median is shortened to it: far above what honest
clients' features differ by, and far below what would end the others' training."""
PROTOTYPES = Unprotected("class prototypes, the mean features of its records")
"""What nothing pays for."""


class FedProtoParams(Frozen):
    """FedProto's own parameters."""

    weight: float = Field(default=1.0, ge=0)
    """The weight of the distance to the global prototypes: the paper's lambda."""
    student: Optimisation = Optimisation(epochs=10)
    """How the server distils the clients' answers into the student."""
    temperature: float = Field(default=1.0, gt=0)
    """What squared distances are divided by before they become probabilities."""


class FedProto(Method):
    """Clients send each class's mean feature and hold their features near the mean of all.

    Tan et al. 2022, arXiv:2105.00243.

    A feature is what enters a model's last linear layer. The paper has no global model; the student
    is ours: clients also answer the proxy set by the paper's rule of the nearest prototype, with
    logits minus the squared distances, and the server distils the mean of their probabilities, in
    which a client counts for a class by its share of the samples. A class of which there is no
    prototype is taken to be as far as the farthest.
    """

    card = Card(
        paper="Tan et al. 2022, arXiv:2105.00243",
        sends="the mean feature and the count of each class of its records, and logits on the "
        "proxy set",
        needs="models whose last features are equally wide, and a proxy set",
        returns="the mean feature of each class over all clients",
        asks=("classes",),
        needs_public=True,
        privileged=True,
        counts=("class counts",),
        summable=True,
        asynchronous="answers",
        announces=True,
        combines=("answers",),
        no_dp="prototypes are means of private records' features, a release of its own that DP-SGD "
        "on the teacher does not cover",
    )
    Params = FedProtoParams
    params: FedProtoParams

    def check(self, setting: Setting) -> None:
        check_widths(setting)

    def expects(self, setting: Setting, client: int) -> Expected:
        spec = setting.experiment.client_model(client)
        width = setting.of_client(client).feature_width(spec)
        shape = (setting.classes, width)
        if setting.securely:
            answers = (setting.classes, len(setting.proxy))
            return {
                "prototypes": TensorSpec(shape, torch.float64),
                "counts": setting.class_counts,
                "answers": TensorSpec(answers, torch.float64),
            }
        return {
            "prototypes": TensorSpec(shape, low=-LARGEST, high=LARGEST),
            "counts": setting.class_counts,
            "logits": TensorSpec((len(setting.proxy), setting.classes), torch.float16, high=0),
        }

    def answers(self, setting: Setting) -> Mapping[str, AnswerField]:
        return {"logits": AnswerField(self.expects(setting, 0)["logits"], lasting=True)}

    def said(self, ctx: ServerContext, uploads: Uploads, inputs: Callable[[], Rows]) -> Tensor:
        return torch.stack([upload["logits"] for upload in uploads.values()])

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        known, prototypes = broadcast.get("known"), broadcast.get("prototypes")
        if known is None or prototypes is None:
            known = torch.zeros(ctx.setting.classes, dtype=torch.bool)
            prototypes = torch.zeros(ctx.setting.classes, feature_width(ctx.teacher))
        loss = partial(
            prototype_loss, prototypes=prototypes, known=known, weight=self.params.weight
        )
        ctx.fit(ctx.teacher, (ctx.data.x, ctx.data.y), loss)
        counts = ctx.class_counts()
        own = class_means(teacher_features(ctx, ctx.data.x), ctx.data.y, ctx.setting.classes)
        nearest = torch.where(known[:, None], prototypes, own)
        answers = distance_logits(
            teacher_features(ctx, ctx.setting.proxy), nearest, known | (counts.data > 0)
        )
        sent, derived = {"prototypes": own}, {"logits": half(answers)}
        if ctx.setting.securely:
            sent = {"prototypes": part_of_mean(own, counts.data)}
            derived = {"answers": part_of_mean(self._probabilities(answers).T, counts.data)}
        return Upload(
            {
                **{n: Value(each, Release(PROTOTYPES)) for n, each in sent.items()},
                "counts": counts,
                **{n: Value(each, PostProcessing(of=PROTOTYPES)) for n, each in derived.items()},
            }
        )

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        read = self._of_sum if ctx.summed else self._of_all
        prototypes, known, targets = read(ctx, uploads)
        if "known" in ctx.state:  # a class that nobody of this round holds stays where it was
            prototypes = torch.where(known[:, None], prototypes, ctx.state["prototypes"])
            known = known | ctx.state["known"]
        ctx.state.update(prototypes=prototypes, known=known)
        told = {"prototypes": prototypes, "known": known}
        broadcast = ctx.announce(Broadcast(common=told))
        ctx.distil(ctx.setting.proxy, targets, label.soft_cross_entropy, self.params.student)
        return broadcast

    def _of_all(self, ctx: ServerContext, uploads: Uploads) -> tuple[Tensor, Tensor, Tensor]:
        """Global prototypes (C, F), which of them are any, and targets on the proxy set (N, C)."""
        means = torch.stack([upload["prototypes"] for upload in uploads.values()])
        counts = ctx.counts(uploads, "counts")
        prototypes = _prototypes(ctx, shortened(means, counts > 0), counts)
        answers = torch.stack([upload["logits"] for upload in uploads.values()]).float()
        plain = partial(by_class_shares, counts=counts)
        said = self._probabilities(answers)
        targets = ctx.combine(uploads, said, plain, OF_PROBABILITIES)
        return prototypes, counts.sum(dim=0) > 0, targets

    def _of_sum(self, _: ServerContext, uploads: Uploads) -> tuple[Tensor, Tensor, Tensor]:
        """The same of a secure sum, in which no prototype can be shortened and no count bounded."""
        [sums] = uploads.values()
        counts = sums["counts"]
        prototypes = mean_of_parts(sums["prototypes"], counts).float()
        said = mean_of_parts(sums["answers"], counts).float().T
        alone = said[None], torch.ones(1, len(counts))  # one client that says what all do
        return prototypes, counts > 0, by_class_shares(*alone)

    def _probabilities(self, logits: Tensor) -> Tensor:
        return torch.softmax(logits.float() / self.params.temperature, dim=-1)


def check_widths(setting: Setting) -> None:
    """Refuse clients whose features cannot be compared.

    Raises:
        ConfigError: says how wide each architecture's are.
    """
    widths = [
        (spec := setting.experiment.client_model(i), setting.of_client(i).feature_width(spec))
        for i in setting.first_clients
    ]
    if len({width for _, width in widths}) > 1:
        found = ", ".join(f"{spec}: {width}" for spec, width in widths)
        raise ConfigError(
            f"method {setting.experiment.method.name!r} compares features of unlike widths in "
            f"clients.models ({found}): expected the same input width of every last linear layer"
        )


def _prototypes(ctx: ServerContext, means: Tensor, counts: Tensor) -> Tensor:
    """What the prototypes (K, C, F) of those who hold a class come to, (C, F); else zeros."""
    if not ctx.ruled:
        return mean_by_class(means, counts)
    return by_rule(ctx.hearing(mean, None), means, counts > 0)


def by_rule(hear: Callable[[Tensor], Tensor], means: Tensor, held: Tensor) -> Tensor:
    """What those who hold a class say of it together, by `ServerContext.hearing`.

    Args:
        hear: (K, N, F) -> (N, F), for any K of at least 1.
        means: (K, C, F).
        held: bool (K, C), whose of them count.

    Returns:
        (C, F), zeros where nobody holds a class.
    """
    found = torch.zeros_like(means[0])
    for number, holders in enumerate(held.T):
        if holders.any():
            found[number] = hear(means[holders, number][:, None])[0]
    return found


def prototype_loss(
    model: nn.Module, x: Tensor, y: Tensor, *, prototypes: Tensor, known: Tensor, weight: float
) -> Tensor:
    """Cross-entropy + weight * mean squared distance of features from their class's prototype.

    Args:
        model: with a last linear layer, see `observe.with_features`.
        x: inputs (N, *shape).
        y: labels (N,).
        prototypes: (C, F).
        known: bool (C,); a sample of another class has cross-entropy alone.
        weight: lambda, at least 0.

    Returns:
        (N,), in nats.
    """
    logits, features = with_features(model, x)
    aims, judged = (each.to(y.device)[y] for each in (prototypes, known))
    distances = (features - aims).square().mean(dim=1)
    return F.cross_entropy(logits, y, reduction="none") + weight * judged * distances


def shortened(means: Tensor, held: Tensor) -> Tensor:
    """Prototypes, none much longer than the rest, so that nobody can fling the mean away.

    Args:
        means: (K, C, F).
        held: bool (K, C): which of them are any client's; only these make the median.

    Returns:
        (K, C, F): those at most ten times as long as the median as they are.
    """
    lengths = torch.linalg.vector_norm(means, dim=2)
    most = _FAR * (lengths[held].median() if held.any() else lengths.max())
    tiny = torch.finfo(means.dtype).tiny
    nearer: Tensor = means * (most / lengths.clamp(min=tiny)).clamp(max=1.0)[:, :, None]
    return nearer


def class_means(features: Tensor, y: Tensor, classes: int) -> Tensor:
    """Features (N, F) of labels (N,) -> each class's mean (C, F), zeros where it has no sample."""
    sums = torch.zeros(classes, features.shape[1], dtype=torch.float64)
    sums.index_add_(0, y, features.double())
    counts = torch.bincount(y, minlength=classes).clamp(min=1)
    return (sums / counts[:, None]).to(features.dtype)


def distance_logits(features: Tensor, prototypes: Tensor, known: Tensor) -> Tensor:
    """Minus squared distances of features (N, F) from prototypes (C, F), as logits (N, C).

    Where `known`, bool (C,), says that a class has no prototype, as low as the farthest that has.
    """
    # Without the trick by a matrix product, which loses the digits of small distances.
    exact = "donot_use_mm_for_euclid_dist"
    squared = torch.cdist(features, prototypes, compute_mode=exact).square()
    farthest = squared[:, known].amax(dim=1, keepdim=True)
    return -torch.where(known, squared, farthest)


def teacher_features(ctx: ClientContext, x: Rows) -> Tensor:
    """What enters the last layer of the teacher, as it is now: (N, F) of N inputs."""
    teacher, parts = ctx.teacher, map(one, batches(x, 512))
    with ctx.clock.phase("answer"), ctx.on_device(teacher), evaluating(teacher), torch.no_grad():
        return torch.cat([with_features(teacher, batch)[1].to(device_of(x)) for batch in parts])
