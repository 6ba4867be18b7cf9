"""Audit what a server can read from what it is sent: membership, classes, images."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import nn

from fedkd import rng
from fedkd.auditing import inversion, labels, membership, references, structure
from fedkd.auditing.findings import Audited
from fedkd.auditing.inversion import Inversion
from fedkd.auditing.labels import LabelInference
from fedkd.auditing.membership import Attack, AttackedAnswers
from fedkd.auditing.scores import Scores, odds_of
from fedkd.auditing.verdicts import CONFIDENCE
from fedkd.clock import Notify
from fedkd.config import ModelSpec
from fedkd.data.types import Samples
from fedkd.errors import UsageError
from fedkd.federation.prepare import PreparedExperiment
from fedkd.jobs.audit import observed, recording
from fedkd.jobs.audit.canary_run import CanaryRun, load
from fedkd.jobs.audit.claims import claimed
from fedkd.learning import supervised
from fedkd.learning.dp import sgd
from fedkd.rows import first, whole
from fedkd.runs.folder import RunFolder
from fedkd.threads import one_intra_op_thread

_THREAT = (
    "server: honest but curious, chose the proxy set, keeps the {what} of all rounds, and trains "
    "reference models"
)
_INVERTED = 2
"""Clients whose images an inversion tries to draw."""


class FitReference(Protocol):
    """Trains a reference model, as `fit` does."""

    def __call__(
        self,
        prepared: PreparedExperiment,
        spec: ModelSpec,
        client: int | None,
        rounds: int,
        samples: Samples,
        number: int,
        /,
    ) -> nn.Module:
        """A model that learned `samples`; `number` is the reference's, for its draws."""


def audit_exchange(
    folder: Path, notify: Notify, *, count: int = 8, confidence: float = CONFIDENCE
) -> Audited:
    """Attack the messages that were recorded in a run's folder.

    Args:
        folder: what `load.record` made.
        notify: is told how far it is.
        count: reference models for each client; even, >= 2.
        confidence: of all intervals and bounds.

    Returns:
        Where clients send nothing that these attacks read, a note, and what the receipts say.

    Raises:
        UsageError: nothing was recorded there.
        LedgerError: a ledger cannot be believed.
    """
    run, messages = load(folder), recording.read_messages(folder)
    receipts = _receipts(folder, run.prepared, messages)
    if reason := observed.why_unreadable(run.prepared):
        return receipts + Audited(notes=(f"the exchange: not attacked, {reason}",))
    models = observed.sends_models(messages)
    setting = run.prepared.setting
    notes: tuple[str, ...] = ()
    classes = "classes" in setting.task.offers
    if not classes:
        notes = (f"the clients' classes: not guessed, task {setting.task.name!r} has none",)
    drawn: tuple[Inversion, ...] = ()
    with one_intra_op_thread():
        attacks = attack_members(folder, run, messages, notify, count=count, confidence=confidence)
        if models or len(setting.shape) != 3 or not classes:
            notes += ("inversion of paired logits: not tried, it needs images and logits on them",)
        else:
            drawn = tuple(_inversions(run, messages, notify))
    return receipts + Audited(
        attacks=tuple(attacks),
        labels=_labels(run, messages) if classes else None,
        inversions=drawn,
        notes=notes,
    )


def check_readable(prepared: PreparedExperiment) -> None:
    """Refuse an experiment in which clients send nothing that these attacks read.

    Raises:
        UsageError: says what they send.
    """
    if reason := observed.why_unreadable(prepared):
        raise UsageError(
            f"method {prepared.experiment.method.name!r}: {reason}; audit its noise and its "
            "student with 'fedkd audit report'"
        )


def fit(
    prepared: PreparedExperiment,
    spec: ModelSpec,
    client: int | None,
    rounds: int,
    samples: Samples,
    number: int,
) -> nn.Module:
    """A reference model: trained as a teacher in so many rounds, without the exchange.

    Without noise, too, where that is on teachers' votes and no teacher is trained by DP-SGD.
    """
    experiment, purpose = prepared.experiment, f"reference {number}"
    training, likelihood = experiment.clients.training, prepared.setting.task.likelihood
    longer = training.model_copy(update={"epochs": training.epochs * rounds})
    setting = prepared.setting if client is None else prepared.setting.of_client(client)
    model = setting.build(spec, purpose=purpose, client=client)
    with setting.visiting(setting.device(client), model):
        votes = prepared.method.voting(prepared.setting)
        if experiment.privacy.unit == "record" and votes is None:
            sgd.train(
                model,
                samples,
                longer,
                setting.noise,
                loss=likelihood.nll,
                like=setting.examples,
            )
        else:
            draws = rng.stream(experiment.seed, purpose=purpose, client=client)
            supervised.train(model, samples, longer, draws, likelihood=likelihood)
    return model


def attack_members(
    folder: Path,
    run: CanaryRun,
    messages: recording.Messages,
    notify: Notify,
    *,
    count: int,
    confidence: float = CONFIDENCE,
    train: FitReference = fit,
) -> list[Attack]:
    """Ask what clients sent who was among their records.

    Args:
        folder: the run's.
        run: the same, with its candidates.
        messages: what its server kept.
        notify: is told how far it is.
        count: reference models for each client; even, >= 2.
        confidence: of all intervals and bounds.
        train: trains reference models.

    Raises:
        LedgerError: a ledger cannot be believed.
    """
    what = "models" if observed.sends_models(messages) else "answers"
    return membership.attack(
        _parties(run, messages, count, notify, train),
        f"the {what} of all rounds",
        _THREAT.format(what=what),
        claim=claimed(folder, run.prepared, by_clients=True),
        confidence=confidence,
    )


def _parties(
    run: CanaryRun, messages: recording.Messages, count: int, notify: Notify, train: FitReference
) -> dict[int, AttackedAnswers]:
    prepared, experiment, parties = run.prepared, run.prepared.experiment, {}
    odds = odds_of(prepared.setting.task)
    advance = counted(notify, "reference models", len(run.candidates) * count)
    for client, candidates in run.candidates.items():
        answers = observed.on_candidates(run, messages, client)
        heard = ~answers.flatten(2).isnan().any(dim=2).all(dim=0)
        foreign, foreign_answers = observed.on_population(run, messages, client)
        asked = candidates.samples.subset(heard.nonzero().flatten())
        sight = prepared.setting.clients_sight(client)
        known = references.train(
            partial(train, prepared, experiment.client_model(client), client, experiment.rounds),
            prepared.data.clients[client].subset(run.base(client)).seen_by(sight),
            asked.seen_by(sight),
            foreign.seen_by(sight),
            count=count,
            generator=rng.stream(experiment.seed, purpose="audit references", client=client),
            advance=advance,
            odds=odds,
        )
        if heard.any():
            parties[client] = AttackedAnswers(
                _mean_known(odds(answers[:, heard], asked.y)),
                candidates.included[heard].numpy(),
                _mean_known(odds(foreign_answers, foreign.y)),
                known,
            )
    return parties


def counted(notify: Notify, phase: str, total: int) -> Callable[[], None]:
    """A function that reports one more of `total` done, each time that it is called."""
    done = itertools.count(1)
    notify(phase, 0, total)
    return lambda: notify(phase, next(done), total)


def _mean_known(odds: Scores) -> Scores:
    """Log-odds (rounds, n) -> their mean (n,) over the rounds in which each was answered."""
    known = ~np.isnan(odds)
    mean: Scores = np.where(known, odds, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return mean


def _labels(run: CanaryRun, messages: recording.Messages) -> LabelInference | None:
    """From the first round in which all answered: later the clients have heard of each other."""
    clients = list(run.candidates)
    for number, uploads in messages.items():
        if set(clients) <= set(uploads):
            first = {number: uploads}
            if observed.sends_models(messages):
                x = observed.test_records(run).x
                answers = {c: observed.by_model(run, first, c, x)[0] for c in clients}
            else:
                answers = {c: observed.on_proxy(run, first, c)[0].nan_to_num() for c in clients}
            return labels.infer(answers, run.prepared.data.counts())
    return None


def _inversions(
    run: CanaryRun, messages: recording.Messages, notify: Notify
) -> Iterator[Inversion]:
    prepared, public = run.prepared, run.public
    together = observed.consensus(run, messages)[:public]
    clients = list(run.candidates)[:_INVERTED]
    for done, client in enumerate(clients):
        notify("inversion", done, len(clients))
        answers = observed.on_proxy(run, messages, client)[:, :public].nanmean(dim=0)
        drawn = inversion.invert(
            client,
            whole(first(prepared.setting.proxy, public)),
            answers.nan_to_num(),
            together,
            prepared.data.clients[client],
            prepared.data.test,
            generator=rng.stream(
                prepared.experiment.seed, purpose="audit inversion", client=client
            ),
            device=prepared.setting.device(),
        )
        if drawn is not None:
            yield drawn
    notify("inversion", len(clients), len(clients))


def _receipts(folder: Path, prepared: PreparedExperiment, messages: recording.Messages) -> Audited:
    """A check where records are protected from the server; otherwise nothing is claimed."""
    fields = {name for uploads in messages.values() for each in uploads.values() for name in each}
    if prepared.experiment.privacy.unit != "record":
        note = f"the {len(fields)} fields that clients send are not protected from the server"
        return Audited(notes=(note,))
    released = [(each["field"], each["provenance"]) for each in RunFolder(folder).released()]
    return Audited(checks=(structure.check_messages(released, sorted(fields)),))
