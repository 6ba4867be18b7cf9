"""fedpair with an anchor: sums of fixed features say what no pair of classes at one client can."""

from collections.abc import Callable
from functools import partial

from pydantic import Field
from torch import Tensor, nn

from fedkd.config import ModelSpec
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Tensors, Upload, Value
from fedkd.knowledge.moments import penalty_of, ridge, triangle
from fedkd.learning.closed_form import check_last_layer, set_classifier
from fedkd.methods.core.base import Card, ClientContext, ServerContext, Setting, Uploads
from fedkd.methods.core.sums import added
from fedkd.methods.fedpair import FedPair, FedPairParams
from fedkd.specs import TensorSpec

_INTERCEPT = 0.3


class FedPairMomentsParams(FedPairParams):
    """The parameters of fedpair, and those of the anchor."""

    features: ModelSpec = ModelSpec.model_validate(
        {"name": "random-filters", "filters": 39, "pool": 7}
    )
    """A model whose last layer is linear: what enters that layer is summed. All parties build it
    alike from the seed; your own extractor goes by import path."""
    anchor: float = Field(default=10.0, gt=0)
    """By what the anchor's answers, near 0 and 1, are multiplied before they are added."""
    ridge: float = Field(default=1e-4, gt=0)
    """The penalty on squared weights, over the mean square of a feature summed over all records."""


class FedPairMoments(FedPair):
    """As fedpair; each client sends two sums over its records too, those of `analytic`.

    The linear model that follows from them is the same whoever holds which record. It is one more
    teacher, who has seen all classes: what it says is added to the pairwise consensus. Where each
    client holds one class it is all that there is.
    """

    card = Card(
        paper="ours; sums as in Zhuang et al. 2025, AFL, arXiv:2405.16240",
        sends="its model, its class counts, and two sums over its records, once",
        needs="images; no data is shared",
        returns="nothing",
        asks=("classes", "image"),
        one_shot=True,
        counts=("class counts",),
        combines=("answers", "models"),
        sums=("sums of features",),
        no_dp="its sums would need a bound of their own beside that of gradients; choose "
        "'analytic', or 'fedpair', which sends no sums",
    )
    Params = FedPairMomentsParams
    params: FedPairMomentsParams

    def check(self, setting: Setting) -> None:
        super().check(setting)
        check_last_layer(self._features(setting), setting.shape, setting.classes, setting.examples)

    def expects(self, setting: Setting, client: int) -> Expected:
        width = self._width(setting)
        return {
            **super().expects(setting, client),
            "features": TensorSpec((width * (width + 1) // 2,)),
            "labels": TensorSpec((width, setting.classes)),
        }

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        upload = super().client(ctx, broadcast)
        with ctx.clock.phase("answer"):
            sums, origin = ctx.moments(
                self._features(ctx.setting), basis=None, intercept=_INTERCEPT, balance=1.0
            )
        return upload.with_values(
            {
                "features": Value(triangle(sums.features).float(), origin),
                "labels": Value(sums.labels.float(), origin),
            }
        )

    def teachers(self, ctx: ServerContext, uploads: Uploads) -> list[nn.Module]:
        sums = added(ctx, uploads)
        anchor = self._features(ctx.setting)
        weights = ridge(sums, penalty_of(sums, self.params.ridge))
        set_classifier(anchor, weights, intercept=_INTERCEPT)
        return [*super().teachers(ctx, uploads), anchor.to(ctx.device)]

    def consensus(self, ctx: ServerContext, uploads: Uploads) -> Callable[[Tensor], Tensor]:
        own = super().consensus(ctx, uploads)
        return partial(_anchored, own=own, weight=self.params.anchor)

    def _features(self, setting: Setting) -> nn.Module:
        return setting.build(self.params.features, purpose="features")

    def _width(self, setting: Setting) -> int:
        return 1 + setting.feature_width(self.params.features)


def _anchored(logits: Tensor, *, own: Callable[[Tensor], Tensor], weight: float) -> Tensor:
    """Logits (K + 1, N, C), the anchor's last, -> (N, C): a product of experts."""
    return own(logits[:-1]) + weight * logits[-1]
