"""What a server's messages say of inputs that it is curious about."""

from collections.abc import Mapping

import torch
from torch import Tensor

from fedkd.data.types import Samples
from fedkd.exchange import likeliest
from fedkd.exchange.messages import Tensors
from fedkd.federation.prepare import PreparedExperiment
from fedkd.jobs.audit.canary_run import CanaryRun
from fedkd.jobs.audit.recording import Messages
from fedkd.rows import Rows, first
from fedkd.tasks import Task

_ON_PROXY = ("logits", "probabilities")
"""Fields that answer the proxy set."""
_POPULATION = 500
"""Records that stand for those that nobody learnt."""


def sends_models(messages: Messages) -> bool:
    """Whether clients send models, which answer anything."""
    return any(name.startswith("model/") for each in _uploads(messages) for name in each)


def why_unreadable(prepared: PreparedExperiment) -> str:
    """Why no attack here reads what clients send; nothing where one does."""
    if prepared.setting.securely:
        return "the server sees nothing but sums over clients"
    fields = prepared.method.expects(prepared.setting, client=0)
    if any(name.split("/")[0] in ("model", *_ON_PROXY) for name in fields):
        return ""
    return "clients send neither models, logits nor probabilities, and no attack here reads more"


def on_candidates(run: CanaryRun, messages: Messages, client: int) -> Tensor:
    """A client's logits on its own candidates, by round: (rounds, m, C), NaN where unanswered."""
    if sends_models(messages):
        return by_model(run, messages, client, run.candidates[client].samples.x)
    start = run.public + sum(len(run.candidates[c]) for c in run.candidates if c < client)
    rows = on_proxy(run, messages, client)
    return rows[:, start : start + len(run.candidates[client])]


def on_population(run: CanaryRun, messages: Messages, client: int) -> tuple[Samples, Tensor]:
    """Records that nobody learnt, and a client's answers on them, (rounds, Z, *A).

    On the proxy set their targets are what all clients say together; models answer the test set.
    """
    if sends_models(messages):
        foreign = test_records(run)
        return foreign, by_model(run, messages, client, foreign.x)
    size = min(_POPULATION, run.public)
    rows = on_proxy(run, messages, client)[:, :size]
    decide = run.prepared.setting.task.likelihood.decide
    labels = decide(consensus(run, messages)[:size])
    return Samples(first(run.prepared.setting.proxy, size), labels), rows


def test_records(run: CanaryRun) -> Samples:
    """Test records that stand for those that nobody learnt."""
    test = run.prepared.data.test
    return test.subset(torch.arange(min(_POPULATION, len(test))))


def consensus(run: CanaryRun, messages: Messages) -> Tensor:
    """What all clients say of the proxy set in all rounds, (P, *A); 0 where nobody spoke."""
    every = [on_proxy(run, messages, client) for client in run.candidates]
    return torch.cat(every).nanmean(dim=0).nan_to_num()


def on_proxy(run: CanaryRun, messages: Messages, client: int) -> Tensor:
    """A client's answers on the proxy set by round, (rounds, P, *A); NaN where there is none."""
    setting = run.prepared.setting
    size = getattr(run.prepared.method.params, "public_per_round", None)
    empty = torch.full((len(setting.proxy), *setting.task.answer), torch.nan)
    by_round = []
    for round, uploads in messages.items():
        rows = empty.clone()
        if client in uploads:
            rows[setting.proxy_subset(size, round)] = read_logits(uploads[client], setting.task)
        by_round.append(rows)
    return torch.stack(by_round)


def read_logits(upload: Tensors, task: Task) -> Tensor:
    """What a client said of the proxy set, (P, *A), up to a constant a place."""
    if "logits" in upload:
        return upload["logits"].float()
    for name in _ON_PROXY:
        if f"{name}/ids" in upload:
            return likeliest.dense(name, upload, task.classes)
    return upload["probabilities"].float().clamp(min=1e-6).log()


def by_model(run: CanaryRun, messages: Messages, client: int, x: Rows) -> Tensor:
    """What the models that a client sent say of n inputs, by round: (rounds, n, *A)."""
    setting = run.prepared.setting
    silent = torch.full((len(x), *setting.task.answer), torch.nan)
    by_round = []
    for uploads in messages.values():
        said = None
        if client in uploads:
            said = run.prepared.method.probe(setting, client, uploads[client], x)
        by_round.append(silent if said is None else said)
    return torch.stack(by_round)


def _uploads(messages: Messages) -> list[Mapping[str, Tensor]]:
    return [upload for uploads in messages.values() for upload in uploads.values()]
