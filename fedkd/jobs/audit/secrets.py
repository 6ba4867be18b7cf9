"""Secrets planted in one client's texts, and what a trained model gives away of them.

Carlini et al. 2019, "The Secret Sharer", arXiv:1802.08232.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from fedkd import rng
from fedkd.auditing import exposure
from fedkd.auditing.exposure import Exposure
from fedkd.auditing.findings import Audited
from fedkd.auditing.verdicts import CONFIDENCE
from fedkd.config import Engine, Experiment
from fedkd.data.texts.forms import shifted
from fedkd.data.texts.tokenizer import Tokenizer, padded
from fedkd.data.types import Samples, joined
from fedkd.errors import UsageError
from fedkd.federation import engines
from fedkd.federation.answers import Observer
from fedkd.federation.prepare import PreparedExperiment, prepare
from fedkd.jobs.audit.claims import claimed
from fedkd.jobs.audit.students import released
from fedkd.jobs.simulate import simulate_world
from fedkd.models import call
from fedkd.rows import one
from fedkd.runs.folder import RunFolder
from fedkd.tasks import Task
from fedkd.tasks.likelihoods.categorical import IGNORED

_OUTSIDER = "outsider: has the released student, and knows all of a text but its digits"
_INSIDER = "has a client's own model, and knows all of a text but its digits"
_AT_ONCE = 256
_MOST_DIGITS = 6


@dataclass(frozen=True)
class Secret:
    """What is planted, and where.

    Attributes:
        text: with one `{}`, in whose place the digits stand.
        digits: how many, so that there are 10^digits fills.
        secrets: how many fills are planted, each drawn on its own.
        times: how often each.
        client: in whose texts.
        label: the class that a classifier learns them by; None: the first.
    """

    text: str = "my number is {}"
    digits: int = 4
    secrets: int = 4
    times: int = 4
    client: int = 0
    label: str | None = None


def audit_secret(
    experiment: Experiment,
    secret: Secret,
    folder: Path,
    observer: Observer,
    *,
    confidence: float = CONFIDENCE,
) -> Audited:
    """Run an experiment with secrets in a client's texts, and rank them among all fills.

    A model that writes is asked how likely each text is, a classifier how likely the label. It runs
    in this process, with ledgers of its own.

    Args:
        experiment: of texts, in one vocabulary.
        secret: what is planted.
        folder: the run's, which must not exist.
        observer: is told how far it is.
        confidence: of all bounds on a model's secrets.

    Raises:
        UsageError: as `prepare`; the task is no classification or language model of texts, or the
            secret does not fit: its text, its digits, its length, its client or its label.
        FederationError: as `simulate`.
    """
    privacy = experiment.privacy.model_copy(update={"ledger": None})
    engine = Engine(device=experiment.engine.device)
    experiment = experiment.model_copy(update={"engine": engine, "privacy": privacy})
    prepared = prepare(experiment)
    fills = _fills(prepared, secret)
    draws = rng.stream(experiment.seed, purpose="audit secrets", client=secret.client)
    planted = torch.randperm(len(fills), generator=draws)[: secret.secrets]
    prepared = _planted(prepared, secret, fills.subset(planted))
    simulate_world(prepared, folder, observer, teachers=[secret.client])
    claim = claimed(folder, prepared, by_clients=False)
    by_client = claimed(folder, prepared, by_clients=True)
    asked = [("the student", _OUTSIDER, released(folder, prepared), claim)]
    states = RunFolder(folder).states
    if (teacher := engines.teacher(prepared, states, secret.client)) is not None:
        asked.append((f"the model of client {secret.client}", _INSIDER, teacher, by_client))
    found: list[Exposure] = [
        exposure.judge(
            _losses(model, fills, prepared.setting.task),
            planted,
            on=on,
            threat=threat,
            times=secret.times,
            claim=held,
            confidence=confidence,
        )
        for on, threat, model, held in asked
    ]
    return Audited(exposures=tuple(found))


def _fills(prepared: PreparedExperiment, secret: Secret) -> Samples:
    """All texts that the secret might be, as records of the task."""
    task, words = prepared.setting.task, prepared.data.tokenizers
    if len(words) != 1 or task.targets not in ("classes", "next-tokens"):
        raise UsageError(
            f"task {task.name!r} hides no secret: expected classes of texts or a language model, "
            "in one vocabulary"
        )
    if secret.text.count("{}") != 1 or not 1 <= secret.digits <= _MOST_DIGITS:
        raise UsageError(
            f"the secret is {secret.text!r} with {secret.digits} digits: expected a text with one "
            f"{{}} and 1 to {_MOST_DIGITS} digits"
        )
    if not 0 <= secret.client < len(prepared.data.clients):
        raise UsageError(
            f"there is no client {secret.client}: expected 0 to {len(prepared.data.clients) - 1}"
        )
    classes = task.names if task.targets == "classes" else ()
    if secret.label is not None and secret.label not in classes:
        raise UsageError(
            f"label {secret.label!r} is no class of task {task.name!r}, which has "
            f"{', '.join(classes) or 'none'}"
        )
    fills = [f"{number:0{secret.digits}d}" for number in range(10**secret.digits)]
    if not 1 <= secret.secrets <= len(fills) // 2:
        raise UsageError(f"{secret.secrets} secrets: expected 1 to {len(fills) // 2}")
    (tokenizer,) = words.values()
    return _records([secret.text.replace("{}", fill) for fill in fills], tokenizer, task, secret)


def _records(texts: Sequence[str], tokenizer: Tokenizer, task: Task, secret: Secret) -> Samples:
    written = task.targets == "next-tokens"
    length = task.inputs[-1] + written
    rows = [each.ids for each in tokenizer.encode(texts, length=length)]
    if (longest := max(tokenizer.count(text) for text in (texts[0], texts[-1]))) > length:
        raise UsageError(
            f"the secret {texts[-1]!r} has {longest} tokens, and data.text.length is {length}: "
            "expected a shorter one"
        )
    if len({tuple(row) for row in rows}) < len(rows):
        raise UsageError(
            f"the tokeniser gives some fills of {secret.text!r} the same tokens, or cuts them: "
            "expected a vocabulary with all digits, and a shorter secret"
        )
    padding = tokenizer.vocabulary.padding
    if written:
        return Samples(*shifted(rows, length - 1, padding))
    label = 0 if secret.label is None else task.names.index(secret.label)
    return Samples(padded(rows, length, padding), torch.full((len(rows),), label))


def _planted(prepared: PreparedExperiment, secret: Secret, chosen: Samples) -> PreparedExperiment:
    clients = list(prepared.data.clients)
    own = clients[secret.client]
    if own.stage is not None:  # of the first that it holds
        chosen = replace(chosen, stage=own.stage[:1].expand(len(chosen)))
    clients[secret.client] = joined(own, *[chosen] * secret.times)
    return replace(prepared, data=replace(prepared.data, clients=tuple(clients)))


def _losses(model: nn.Module, fills: Samples, task: Task) -> Tensor:
    """How unlikely each fill is: of a text the sum over its tokens, in nats, (R,)."""
    model.eval()
    found = []
    with torch.no_grad():
        for rows in torch.split(torch.arange(len(fills)), _AT_ONCE):
            y = fills.y[rows]
            nll = task.likelihood.nll(call.answer(model, one(fills.x[rows])).cpu(), y)
            places = (y != IGNORED).reshape(len(rows), -1).sum(dim=1)
            found.append(nll.double() * places)
    return torch.cat(found)
