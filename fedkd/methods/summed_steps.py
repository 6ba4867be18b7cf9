"""Gradient descent of the last layer by sums over all records: softmax regression, step by step."""

from typing import Literal

import torch
from pydantic import Field

from fedkd.config import Frozen
from fedkd.errors import ConfigError, MessageError
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Broadcast, Tensors, Upload, Value, group, prefixed
from fedkd.learning.closed_form import check_last_layer, set_classifier
from fedkd.learning.softmax_regression import stepped
from fedkd.methods.analytic import with_front
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.methods.core.sums import added_gradients, gradient, short_step, shortened
from fedkd.models.fixed import bases
from fedkd.specs import TensorSpec

_DTYPES = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}
_LARGEST = torch.finfo(torch.float16).max
CENTRED = 400.0
"""The learning rate for features of norm 1 whose mean is near 0."""


class SummedStepsParams(Frozen):
    """The steps' parameters: all public, none derived from private data."""

    records: int | None = Field(default=None, ge=1)
    """About how many records the clients of a round hold together, by public knowledge: what sums
    are divided by. It must be given, for the true number would be a release of its own."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Of a step, in the mean gradient. None: `CENTRED` for a model whose features are centred on
    public shapes (`contrast-filters`), and else 1: see the rule in docs/methods.md."""
    momentum: float = Field(default=0.8, ge=0, lt=1)
    """Of the steps, heavy-ball."""
    average: float = Field(default=0.0, ge=0, lt=1)
    """The share of the rounds, the last ones, whose iterates are averaged into the student; 0: it
    is the last iterate."""
    intercept: float = Field(default=0.1, gt=0)
    """The constant beside the features, which makes the bias."""
    precision: Literal["float16", "float32", "float64"] = "float32"
    """Of the sums on the wire. Secure aggregation has its own forms: whole numbers of 2 bytes where
    this is float16, which needs noise to hide in, and else of 8. At float16 the last layer is sent
    back in it too, and the server goes on from its own."""


class SummedSteps(Method):
    """Each round is one step of softmax regression on fixed features, by all records' gradients.

    FedSGD, McMahan et al. 2017, arXiv:1602.05629, of the last linear layer alone; under DP it is
    DP-SGD, Abadi et al. 2016, arXiv:1607.00133, whose batch is all records of all clients. A client
    sends the sum over its records of their gradients, each clipped, and nothing else: sums do not
    depend on who holds which record. Under secure aggregation noise is on the sum once in all, so
    that the student is what one party with all records would get, whatever the partition. The
    rounds are planned and paid for as so many Gaussian releases. That few numbers on public
    features bear noise best: Tramer & Boneh 2021, arXiv:2011.11660; the rest is ours.
    """

    card = Card(
        paper="FedSGD, McMahan et al. 2017, arXiv:1602.05629",
        sends="the sum of its records' gradients of the last layer",
        needs="a student's model whose last layer is linear; all before it is fixed",
        returns="the last layer",
        asks=("classes",),
        schedule="which of its steps are averaged",
        has_teachers=False,
        sums=("sum of gradients",),
        summable=True,
    )
    Params = SummedStepsParams
    params: SummedStepsParams

    def check(self, setting: Setting) -> None:
        model = setting.build(setting.experiment.student.model, purpose="specification")
        check_last_layer(model, setting.shape, setting.classes, setting.examples)
        if self.params.records is None:
            raise ConfigError(
                "method.records is missing: expected about how many records the clients of a round "
                "hold together, by public knowledge, which sums are divided by"
            )
        privacy = setting.experiment.privacy
        if setting.securely and privacy.unit == "none" and self.params.precision == "float16":
            raise ConfigError(
                "method.precision is 'float16' under secure aggregation without differential "
                "privacy: 16 bits of a sum hide nothing without noise, and are too few; take "
                "'float32', or name a privacy.epsilon"
            )

    def expects(self, setting: Setting, client: int) -> Expected:
        return {"gradient": TensorSpec(self._shape(setting), self._dtype(setting))}

    def begin(self, ctx: ServerContext) -> Broadcast:
        nothing = torch.zeros(self._shape(ctx.setting)).double()
        ctx.state.update(weights=nothing, velocity=nothing.clone(), mean=nothing.clone())
        return self._told(ctx)

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        if given := group("front", broadcast):
            ctx.keep("front", given)
        front = prefixed("front", group("front", ctx.state))
        model = with_front(ctx.setting, front)
        if bases(model) and not front:
            raise MessageError(
                "the server sent its basis to all in an earlier round, of which this client has "
                "nothing: it must take part from the first round on, with one state folder"
            )
        if tuple(broadcast["weights"].shape) != (shape := self._shape(ctx.setting)):
            # Of fewer classes an error would tell which ones this client holds.
            raise MessageError(
                f"the server sent weights of shape {tuple(broadcast['weights'].shape)}: expected "
                f"{shape}, features and the constant by classes"
            )
        with ctx.clock.phase("answer"):
            weights = broadcast["weights"].double()
            found, origin = gradient(ctx, model, weights, self.params.intercept)
        dtype = self._dtype(ctx.setting)
        if dtype == torch.int16:
            return Upload({"gradient": Value(shortened(found, short_step(ctx.setting)), origin)})
        if dtype == torch.float16:
            found = found.clamp(-_LARGEST, _LARGEST)
        return Upload({"gradient": Value(found.to(dtype), origin)})

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        total = added_gradients(ctx, uploads)
        if self._dtype(ctx.setting) == torch.int16:
            total = total * short_step(ctx.setting)
        mean = total / (self.params.records or 1)
        weights, velocity = stepped(
            # The very numbers at which clients took their gradients, but for float16's rounding.
            ctx.state["weights"],
            ctx.state["velocity"],
            mean,
            rate=self.params.learning_rate or (CENTRED if bases(ctx.student) else 1.0),
            momentum=self.params.momentum,
        )
        ctx.state.update(weights=weights.float().double(), velocity=velocity)
        skipped = (1 - self.params.average) * ctx.setting.experiment.rounds
        chosen = weights
        if self.params.average and (averaged := ctx.round - int(skipped)) > 0:
            chosen = ctx.state["mean"] + (weights - ctx.state["mean"]) / averaged
            ctx.state["mean"] = chosen
        set_classifier(ctx.student, chosen, intercept=self.params.intercept)
        if ctx.parties(uploads) == ctx.setting.clients:
            ctx.state["told"] = torch.ones(())
        return self._told(ctx)

    def _told(self, ctx: ServerContext) -> Broadcast:
        """The last layer, and, until all have it, what the model found by a decomposition."""
        weights = ctx.state["weights"]
        told = {"weights": weights.float()}
        if self.params.precision == "float16":
            told["weights"] = weights.clamp(-_LARGEST, _LARGEST).half()
        if "told" not in ctx.state:
            told |= prefixed("front", bases(ctx.student))
        return Broadcast(common=told)

    def _dtype(self, setting: Setting) -> torch.dtype:
        """Of the sums; under secure aggregation rounding would show whose numbers are small."""
        if not setting.securely:
            return _DTYPES[self.params.precision]
        return torch.int16 if self.params.precision == "float16" else torch.float64

    def _shape(self, setting: Setting) -> tuple[int, int]:
        """Of the last layer: the features and the constant, by classes."""
        return 1 + setting.feature_width(setting.experiment.student.model), setting.classes
