"""Federated distillation in which clients answer what they know, and the server hears the sure."""

import math

import torch
from pydantic import Field
from torch import Tensor

from fedkd import rng
from fedkd.config import Frozen, Optimisation
from fedkd.errors import ConfigError
from fedkd.exchange.codec import Expected, half
from fedkd.exchange.messages import Broadcast, Release, Tensors, Upload, Value
from fedkd.knowledge import label
from fedkd.learning import density
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.privacy.events import Unprotected
from fedkd.rows import Rows, take, whole
from fedkd.specs import TensorSpec

_MOST = 500
"""Of its records that a client's density is fitted to, held against, and drawn noise: cubes of
these are what fitting takes."""
_PENALTY = 1e-3
"""Of the density's fit, as in the authors' code."""


class SelectiveFDParams(Frozen):
    """Selective-FD's own parameters."""

    public_per_round: int | None = Field(default=None, ge=1)
    """Proxy samples used in a round, drawn anew each round; all of them unless given."""
    strange: float = Field(default=0.25, ge=0, lt=1)
    """The share of its own held-out records than which a proxy sample must be denser, for a client
    to answer it: the authors' first quartile."""
    width: float = Field(default=0.33, gt=0)
    """Of the density's kernel, times the root of how many numbers a record has, of which the proxy
    set's range is 1; the authors' 30 on MNIST."""
    ambiguity: float = Field(default=0.5, gt=0, le=1)
    """The most entropy that a mean of answers may have to be heard, over that of all classes
    alike."""
    digest: Optimisation = Optimisation(epochs=1)
    """How a client fits its teacher to what is heard before it returns to its private data."""
    student: Optimisation = Optimisation(epochs=10)
    """How the server distils what is heard into the student."""


class SelectiveFD(Method):
    """Clients answer proxy samples that are like their records; unsure means are left out.

    Shao, Wu & Zhang 2023, arXiv:2304.01731. A client compares the density of its records with
    that of noise, even over the range of the proxy set (`learning.density`), and answers samples
    where it is denser than at a share of records that the density was not fitted to. The server
    takes the mean of those who answer a sample, and drops samples that nobody answers or whose
    mean has too much entropy. The paper ends with the clients' models; the student is ours.

    Unlike in the authors' code, one density is fitted to all of a client's classes, which it need
    not tell apart.
    """

    card = Card(
        paper="Shao et al. 2023, arXiv:2304.01731",
        sends="class probabilities on the proxy samples that are like its records, and which",
        needs="a proxy set of rows of numbers or images",
        returns="the mean of all answers, where it is sure",
        asks=("classes",),
        needs_public=True,
        no_dp="which proxy samples a client answers is found by comparing them with its records, "
        "which no noise on its teacher covers",
    )
    Params = SelectiveFDParams
    params: SelectiveFDParams

    def check(self, setting: Setting) -> None:
        for client in setting.first_clients:
            if not {"image", "features"} & (own := setting.of_client(client).task).offers:
                raise ConfigError(
                    f"method 'selective-fd' compares rows of numbers or images, and client "
                    f"{client} sees records of shape {own.inputs}: choose 'fedmd' or 'dsfl'"
                )

    def expects(self, setting: Setting, client: int) -> Expected:
        rows = len(setting.proxy_subset(self.params.public_per_round, round=1))
        shape = (rows, *setting.task.answer)
        return {
            "probabilities": TensorSpec(shape, torch.float16, low=0, high=1),
            "known": TensorSpec((rows,), torch.bool),
        }

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        params = self.params
        if "heard" in broadcast and broadcast["heard"].any():
            heard = broadcast["heard"]  # the last round's, so it stands on the last round's subset
            inputs = ctx.setting.proxy_inputs(params.public_per_round, ctx.round - 1)
            inputs = take(inputs, heard.nonzero()[:, 0])
            targets = broadcast["aggregate"][heard].float()
            ctx.distil(inputs, targets, label.soft_cross_entropy, params.digest)
        ctx.train()
        inputs = ctx.setting.proxy_inputs(params.public_per_round, ctx.round)
        probabilities = torch.softmax(ctx.answer(inputs), dim=-1)
        with ctx.clock.phase("answer"):
            known = self._known(ctx, inputs)
        told = Release(Unprotected("which proxy samples are like its records"))
        answers = half(torch.where(known[:, None], probabilities, 0.0))
        return Upload({"probabilities": Value(answers, told), "known": Value(known, told)})

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        known = torch.stack([each["known"] for each in uploads.values()])
        answers = torch.stack([each["probabilities"] for each in uploads.values()])
        aggregate, heard = selected(answers, known, most=self.params.ambiguity)
        if heard.any():
            inputs = ctx.setting.proxy_inputs(self.params.public_per_round, ctx.round)
            inputs = take(inputs, heard.nonzero()[:, 0])
            ctx.distil(inputs, aggregate[heard], label.soft_cross_entropy, self.params.student)
        return Broadcast(common={"aggregate": half(aggregate), "heard": heard})

    def _known(self, ctx: ClientContext, inputs: Rows) -> Tensor:
        """Which inputs (N,) are like the client's records; of one record none is known to be."""
        own = whole(ctx.data.x).flatten(1)
        if len(own) < 2:
            return torch.zeros(len(inputs), dtype=torch.bool)
        places, order = (
            whole(inputs).flatten(1),
            torch.randperm(len(own), generator=ctx.rng("halves")),
        )
        proxy = whole(ctx.setting.proxy).flatten(1)
        low, spread = proxy.amin(dim=0), proxy.amax(dim=0) - proxy.amin(dim=0)
        spread = torch.where(spread > 0, spread, 1.0)
        # Noise of one stream, so that all clients mean the same by nothing in particular.
        draws = rng.stream(ctx.setting.experiment.seed, purpose="density")
        noise = torch.rand(min(_MOST, 2 * len(own)), own.shape[1], generator=draws)
        middle = (len(own) + 1) // 2
        fitted, held = own[order[:middle][:_MOST]], own[order[middle:][:_MOST]]
        found = density.ratio(
            (fitted - low) / spread,
            noise,
            (torch.cat([held, places]) - low) / spread,
            width=self.params.width * math.sqrt(own.shape[1]),
            penalty=_PENALTY,
        )
        return found[len(held) :] > found[: len(held)].quantile(self.params.strange)


def selected(answers: Tensor, known: Tensor, *, most: float) -> tuple[Tensor, Tensor]:
    """The mean of who answers a sample, and which means are sure.

    Args:
        answers: probabilities (K, N, C); only those of `known` rows are looked at.
        known: bool (K, N).
        most: the most entropy of a mean over log C.

    Returns:
        The means (N, C), zeros where nobody answers; and whether each is heard, bool (N,).
    """
    weights = known.float()[:, :, None]
    mean = (answers.float() * weights).sum(dim=0) / weights.sum(dim=0).clamp(min=1)
    entropy = torch.special.entr(mean).sum(dim=1) / math.log(mean.shape[1])
    return mean, known.any(dim=0) & (entropy <= most)
