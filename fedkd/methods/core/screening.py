"""Screening: who is heard in a round, and how loud, before a method's server part sees anything.

The server asks nobody for more than the method does. What clients say of the same inputs, their
answers or those of the models that they sent, is compared by `exchange.aggregation.agreement`; who
does not agree with the rest is left out of the round as if it had not answered. Of those that stay,
equal models that lie far from all others are drawn nearer.
"""

import hashlib
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from fedkd import rng
from fedkd.config import ModelSpec
from fedkd.config.robust import Robust
from fedkd.data.shapes import made_up
from fedkd.exchange.aggregation import agreement
from fedkd.exchange.aggregation import models as rules_of_models
from fedkd.exchange.aggregation.agreement import FEWEST, Screened
from fedkd.exchange.codec import encode
from fedkd.exchange.messages import Tensors, group
from fedkd.knowledge.places import spoken
from fedkd.methods.core.base import Method
from fedkd.methods.core.server_context import ServerContext, Uploads
from fedkd.rows import Rows, take
from fedkd.tasks import Task

_INPUTS = 512
"""On how many clients are compared; more tells no more, as long as nobody knows which they are."""
_AGAINST = -0.25
"""The least cosine of what a model learned with what the rest did, of a client that is heard.

Honest ones learn at right angles in late rounds and under noise, and come to -0.23 (Dirichlet 0.3);
who sends the opposite of what it learned has at most -0.3 where most are honest.
"""
_ALONE = 1 / 3
"""The most of what a model learned, by length, that it learned of inputs of layers of which the
others learn nearly nothing. Honest ones come to 0.20, and to 0.29 beside hostile ones (Dirichlet
0.3); with a backdoor half of whose records carry the trigger, to 0.39 and more in the first round.
"""
_PAST, _KNOWN = "screening/agreement", "screening/known"
"""In the method's state: each client's agreement in earlier rounds, and of whom it is known."""


def screened(
    method: Method, ctx: ServerContext, robust: Robust, uploads: Uploads
) -> tuple[Uploads, Screened]:
    """The uploads of those that are heard, and what was found of all.

    A client is heard if it agrees well enough in this round, and on average with its earlier ones,
    which count by `robust.memory`; so honest rounds buy nobody a lie. Of fewer than three nobody
    can be told to lie, and nothing is remembered of their round.
    """
    if len(uploads) < FEWEST:
        return uploads, Screened(agreement={})
    heard, agreements, contradiction, moves, alone = uploads, {}, {}, {}, {}
    draws = _draws(method, ctx, uploads)
    said = method.said(ctx, uploads, lambda: _inputs(ctx, draws))
    if said is not None:
        few = said[:, _some(said.shape[1], draws)]
        comparable = _comparable(few, ctx.setting.task)
        found = agreement.agreement(agreement.alike(comparable))
        agreements = dict(zip(uploads, found.tolist(), strict=True))
        stay = agreement.kept(_with_past(ctx, robust, list(uploads), found))
        if "categorical" in ctx.setting.task.offers:
            against, stay = agreement.uncontradicted(comparable, stay, spoken(few))
            contradiction = dict(zip(uploads, against.tolist(), strict=True))
        heard = _those(uploads, stay)
    if (learned := _learned(ctx, heard)) is not None:
        found, apart = learned
        moves = dict(zip(heard, found.tolist(), strict=True))
        alone = dict(zip(heard, apart.tolist(), strict=True))
        most = (len(uploads) - 1) // 2 - (len(uploads) - len(heard))
        worst = torch.maximum(_AGAINST - found, apart - _ALONE)
        out = worst.argsort(descending=True, stable=True)[: max(0, most)]
        stay = torch.ones_like(found, dtype=torch.bool)
        stay[out] = worst[out] <= 0
        heard = _those(heard, stay)
    cut = _too_far(ctx, heard)
    return _drawn(heard, cut), Screened(
        agreement=agreements,
        contradiction=contradiction,
        left_out=tuple(each for each in uploads if each not in heard),
        moves=moves,
        alone=alone,
        drawn_nearer={client: factor for client, (factor, _) in cut.items()},
    )


def _those(uploads: Uploads, stay: Tensor) -> Uploads:
    """The uploads of who stays, bool (K,)."""
    return {
        c: each for (c, each), heard in zip(uploads.items(), stay.tolist(), strict=True) if heard
    }


def _learned(ctx: ServerContext, uploads: Uploads) -> tuple[Tensor, Tensor] | None:
    """How well what models learned, as directions of weights, agrees, and what each learned alone.

    What they learned is how they differ from the student before. See `agreement.agreement` and
    `agreement.beyond`; both (K,). None where not all are models like the student, from which equal
    models begin.
    """
    start = {f"model/{name}": each for name, each in ctx.student.state_dict().items()}
    learned = [f"model/{name}" for name, _ in ctx.student.named_parameters()]
    for upload in uploads.values():
        own = {name: each for name, each in upload.items() if name.startswith("model/")}
        if not own or any(n not in start or t.shape != start[n].shape for n, t in own.items()):
            return None
        learned = [name for name in learned if name in own]
    products = torch.zeros(len(uploads), len(uploads), dtype=torch.float64)
    squares, beyond = products.new_zeros(len(uploads)), products.new_zeros(len(uploads))
    for name in learned:
        ways = (
            torch.stack([each[name].double() for each in uploads.values()]) - start[name].double()
        )
        rows = ways.flatten(1)
        products += rows @ rows.T
        if ways.dim() > 2:
            squares += rows.square().sum(dim=1)
            beyond += agreement.beyond(ways)
    agreed = agreement.agreement(agreement.cosines(products), least=0.0)
    alone = (beyond / squares.clamp(min=torch.finfo(squares.dtype).tiny)).nan_to_num(nan=1.0)
    return agreed, alone.sqrt()


def _draws(method: Method, ctx: ServerContext, uploads: Uploads) -> torch.Generator:
    """A stream that nobody knows before all have answered, and that a replay has again.

    It follows from what the method had all clients send. By the experiment's seed alone a liar
    would know on which inputs it is compared, and be honest there.
    """
    digest = hashlib.sha256()
    for client, upload in uploads.items():  # without reports, which say how long things took
        names = method.expects(ctx.setting, client)
        digest.update(encode({name: upload[name] for name in names}))
    seed = ctx.setting.experiment.seed
    return rng.stream(seed, purpose=f"screening {digest.hexdigest()}", round=ctx.round)


def _inputs(ctx: ServerContext, draws: torch.Generator) -> Rows:
    """What uploaded models are asked: of the proxy set, or images that nobody's data went into.

    For want of both it is the examples by which models are tried out, without their targets.
    """
    setting = ctx.setting
    if setting.public is None and len(setting.shape) == 3:
        return made_up(_INPUTS, setting.shape, draws)
    known = setting.examples if setting.public is None else setting.proxy
    if known is None:
        raise ValueError("Expected a proxy set or examples.")
    return take(known, _some(len(known), draws))


def _some(rows: int, draws: torch.Generator) -> Tensor:
    """Some of as many rows, in order."""
    return torch.randperm(rows, generator=draws)[:_INPUTS].sort().values


def _comparable(said: Tensor, task: Task) -> Tensor:
    """Answers (K, N, *A) on a scale of which no one can be louder than another."""
    few = said.float()
    if task.likelihood.couples:  # of embeddings no axis is the same: which records are alike
        rows = F.normalize(few.flatten(2), dim=-1)
        return rows @ rows.mT
    if task.likelihood.bounded is None:
        return few
    bounded = task.likelihood.bounded.into(few)
    silent = ~spoken(few)
    if not bool(silent.any()):
        return bounded
    # At padding nobody says anything: as its mean, so that it is nothing beside the rest.
    bounded, silent = bounded.reshape(len(few), -1, few.shape[-1]), silent.flatten(1)[..., None]
    told = (~silent).double().sum(dim=1, keepdim=True).clamp(min=1)
    mean = bounded.masked_fill(silent, 0.0).double().sum(dim=1, keepdim=True) / told
    return torch.where(silent, mean, bounded.double())


def _with_past(ctx: ServerContext, robust: Robust, ids: list[int], found: Tensor) -> Tensor:
    """The least of a client's agreement now and on average with earlier rounds; both are kept."""
    clients = ctx.setting.clients
    past = ctx.state.get(_PAST, torch.zeros(clients, dtype=torch.float64)).clone()
    known = ctx.state.get(_KNOWN, torch.zeros(clients, dtype=torch.bool)).clone()
    mixed = torch.where(known[ids], robust.memory * past[ids] + (1 - robust.memory) * found, found)
    past[ids], known[ids] = mixed, True
    ctx.state.update({_PAST: past, _KNOWN: known})
    return torch.minimum(found, mixed)


def _too_far(ctx: ServerContext, uploads: Uploads) -> dict[int, tuple[float, Tensors]]:
    """Whose model lies too far from all equal ones: by what factor to cut that, and from what."""
    equal: dict[ModelSpec, dict[int, dict[str, Tensor]]] = {}
    for client, upload in uploads.items():
        own = {n: t for n, t in group("model", upload).items() if t.is_floating_point()}
        if own:
            equal.setdefault(ctx.setting.experiment.client_model(client), {})[client] = own
    cut: dict[int, tuple[float, Tensors]] = {}
    for models in equal.values():
        if len(models) < FEWEST:
            continue
        sent = list(models.values())
        centre = rules_of_models.median(sent)
        factors = agreement.no_longer(rules_of_models.distances(sent, centre)).tolist()
        cut |= {c: (f, centre) for c, f in zip(models, factors, strict=True) if f < 1}
    return cut


def _drawn(uploads: Uploads, cut: Mapping[int, tuple[float, Tensors]]) -> Uploads:
    """The uploads, models that are too far away drawn towards the middle of all equal ones."""
    drawn = dict(uploads)
    for client, (factor, centre) in cut.items():
        nearer = {}
        for name, middle in centre.items():
            own = uploads[client][f"model/{name}"]
            drawn_to = middle.double().lerp(own.double(), factor)
            nearer[f"model/{name}"] = drawn_to.to(own.dtype)
        drawn[client] = {**uploads[client], **nearer}
    return drawn
