"""Analytic federated learning: a linear model on fixed features, in closed form."""

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fedkd.config import Frozen
from fedkd.errors import ConfigError
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Broadcast, Tensors, Upload, Value, group, prefixed
from fedkd.knowledge.moments import (
    Correlations,
    Moments,
    discriminant,
    noise_norm,
    penalty_of,
    restored,
    ridge,
    triangle,
    unpacked,
)
from fedkd.learning import evaluate
from fedkd.learning.closed_form import Basis, check_last_layer, features_of, set_classifier
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.methods.core.sums import added_moments, correlations
from fedkd.models.fixed import bases
from fedkd.rows import Rows
from fedkd.specs import TensorSpec

_DTYPES = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}


class AnalyticParams(Frozen):
    """The closed form's parameters: all public, none derived from private data."""

    ridge: float = Field(default=1e-4, gt=0)
    """The penalty on squared weights, over the mean square of a feature summed over all records."""
    intercept: float = Field(default=0.3, gt=0)
    """The constant beside the features, which makes the bias; it is penalised as they are."""
    components: int | None = Field(default=None, ge=1)
    """With a proxy set: principal components of its features to which all are projected."""
    whitening: float = Field(default=0.7, ge=0, le=1)
    """How far components are scaled to one variance: 0 not at all, 1 wholly."""
    precision: Literal["float16", "float32", "float64"] = "float64"
    """Of the sums on the wire; float32 halves the bytes, and rounds each client's sums. float16
    quarters them: correlations to 2^-12 each, beside float32 roots and sums with labels. Secure
    aggregation has its own form, of 8 bytes, whatever is said here."""
    head: Literal["ridge", "lda"] = Field(default="ridge", exclude_if=lambda head: head == "ridge")
    """How the last layer follows from the sums: ridge regression on one-hot labels, or linear
    discriminant analysis, whose within-class scatter is shrunk by the same penalty."""
    balance: float = Field(default=1.0, gt=0)
    """Under DP: the share of the noise that the sum with labels is spared, over the other's."""
    shrinkage: float = Field(default=0.2, gt=0)
    """Under DP: the penalty is at least this times the noise's spectral norm."""


class Analytic(Method):
    """Clients send two sums over their records, once; the server solves ridge regression.

    Zhuang et al. 2025, AFL, arXiv:2405.16240.

    Features are what enters the last linear layer of the student's model, which all parties build
    alike from the seed; only that layer is fitted. A client sends sum phi phi^T and sum phi y^T,
    labels one-hot. Sums do not depend on who holds which record, so the student is that of the
    pooled data, whatever the label skew and however many clients. In the paper the features are a
    pre-trained network's, and clients send their own solutions, which the server combines to the
    same result. Components of a proxy set's features, sums in float16, and noise on the sums, are
    ours. So is that the server sends what its model found by a decomposition (`models.fixed`).
    """

    card = Card(
        paper="Zhuang et al. 2025, AFL, arXiv:2405.16240",
        sends="two sums over its records: of features by features, and of features by labels",
        needs="a student's model whose last layer is linear; all before it is fixed",
        returns="nothing",
        asks=("classes",),
        one_shot=True,
        has_teachers=False,
        sums=("sums of features",),
        summable=True,
    )
    Params = AnalyticParams
    params: AnalyticParams

    def check(self, setting: Setting) -> None:
        model = setting.build(setting.experiment.student.model, purpose="specification")
        check_last_layer(model, setting.shape, setting.classes, setting.examples)
        if self._correlated(setting) and setting.experiment.privacy.unit != "none":
            raise ConfigError(
                "method.precision is 'float16', which writes sums as correlations, and noise under "
                "privacy.unit = 'record' leaves none to write: expected 'float32' or 'float64'"
            )
        wanted = self.params.components
        if wanted is None:
            return
        if setting.public is None:
            raise ConfigError(
                f"method.components is {wanted}, and there is no proxy set to find them on: add a "
                "section [data.public], or leave it out"
            )
        most = min(len(setting.public) - 1, setting.feature_width(setting.experiment.student.model))
        if wanted > most:
            raise ConfigError(
                f"method.components is {wanted}: expected at most {most}, the features' width "
                "and less than the proxy set's size"
            )

    def expects(self, setting: Setting, client: int) -> Expected:
        width, dtype = self._width(setting), self._dtype(setting)
        if self._correlated(setting):
            own = width - 1
            return {
                "correlations": TensorSpec((own * (own - 1) // 2,), torch.float16, low=-1, high=1),
                "roots": TensorSpec((own,), low=0),
                "labels": TensorSpec((width, setting.classes)),
            }
        return {
            "features": TensorSpec((width * (width + 1) // 2,), dtype),
            "labels": TensorSpec((width, setting.classes), dtype),
        }

    def begin(self, ctx: ServerContext) -> Broadcast:
        # Sent, not computed by each: another machine's eigenvectors may have other signs.
        front = prefixed("front", bases(ctx.student))
        if self.params.components is None:
            return Broadcast(common=front)
        with ctx.on_device(ctx.student):
            features = features_of(ctx.student, ctx.setting.proxy)
        basis = Basis.of(
            features,
            components=self.params.components,
            whitening=self.params.whitening,
        )
        ctx.state.update(mean=basis.mean, axes=basis.axes)
        return Broadcast(common={"mean": basis.mean, "axes": basis.axes, **front})

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        model = with_front(ctx.setting, broadcast)
        basis, intercept = _basis(broadcast), self.params.intercept
        with ctx.clock.phase("answer"):
            if self._correlated(ctx.setting):
                found, origin = correlations(ctx, model, basis=basis, intercept=intercept)
                named = found._asdict().items()
                return Upload({name: Value(each, origin) for name, each in named})
            sums, origin = ctx.moments(
                model, basis=basis, intercept=intercept, balance=self.params.balance
            )
        dtype = self._dtype(ctx.setting)
        return Upload(
            {
                "features": Value(triangle(sums.features).to(dtype), origin),
                "labels": Value(sums.labels.to(dtype), origin),
            }
        )

    def said(self, ctx: ServerContext, uploads: Uploads, inputs: Callable[[], Rows]) -> Tensor:
        """What the model would answer that follows from one client's sums alone."""
        spec, x = ctx.setting.experiment.student.model, inputs()
        answers = []
        for own in self._moments(ctx, uploads).values():
            weights = self._solved(ctx.setting, own, ctx.setting.noise_share**2)
            alone = ctx.setting.build(spec, purpose="student")
            set_classifier(alone, weights, basis=_basis(ctx.state), intercept=self.params.intercept)
            answers.append(evaluate.answers(alone, x))
        return torch.stack(answers)

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        sums = added_moments(ctx, self._moments(ctx, uploads))
        releases = ctx.parties(uploads) * ctx.setting.noise_share**2
        weights = self._solved(ctx.setting, sums, releases)
        set_classifier(
            ctx.student, weights, basis=_basis(ctx.state), intercept=self.params.intercept
        )
        return Broadcast()

    def _moments(self, ctx: ServerContext, uploads: Uploads) -> dict[int, Moments]:
        """What clients send, in whatever form it came."""
        if not self._correlated(ctx.setting):
            return {c: unpacked(each["features"], each["labels"]) for c, each in uploads.items()}
        names, intercept = Correlations._fields, self.params.intercept
        return {
            client: restored(Correlations(**{name: each[name] for name in names}), intercept)
            for client, each in uploads.items()
        }

    def _solved(self, setting: Setting, sums: Moments, releases: float) -> Tensor:
        """The last layer's weights, by the head that is named."""
        penalty, quickly = self._penalty(setting, sums, releases), self._correlated(setting)
        if self.params.head == "lda":
            return discriminant(sums, penalty, self.params.intercept, quickly=quickly)
        return ridge(sums, penalty, quickly=quickly)

    def _penalty(self, setting: Setting, sums: Moments, releases: float) -> float:
        """What is added to the eigenvalues, far above rounding errors and above the noise."""
        penalty = penalty_of(sums, self.params.ridge)
        if setting.experiment.privacy.unit == "none":
            return penalty
        noise = setting.summing("sums of features").noise_multiplier
        edge = noise_norm(
            len(sums.features),
            bound=setting.features_norm(self.params.intercept),
            balance=self.params.balance,
            noise_multiplier=noise,
            releases=releases,
        )
        return max(penalty, self.params.shrinkage * edge)

    def _correlated(self, setting: Setting) -> bool:
        """Whether sums are written as correlations; those under secure aggregation never are."""
        return self.params.precision == "float16" and not setting.securely

    def _dtype(self, setting: Setting) -> torch.dtype:
        """Of the sums; under secure aggregation rounding would show whose numbers are small."""
        return torch.float64 if setting.securely else _DTYPES[self.params.precision]

    def _width(self, setting: Setting) -> int:
        """Of the sums: features or components, and the constant."""
        width = setting.feature_width(setting.experiment.student.model)
        return 1 + (self.params.components or width)


def with_front(setting: Setting, broadcast: Tensors) -> nn.Module:
    """The student's model as all parties have it before its last layer."""
    model = setting.build(setting.experiment.student.model, purpose="student")
    if given := group("front", broadcast):
        model.load_state_dict({**model.state_dict(), **given})
    return model


def _basis(tensors: Tensors) -> Basis | None:
    return Basis(tensors["mean"], tensors["axes"]) if "axes" in tensors else None
