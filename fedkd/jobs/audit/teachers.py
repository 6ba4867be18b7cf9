"""Audits of the mechanisms and of teachers, and of all that an experiment does."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fedkd import rng
from fedkd.auditing import dirac, mechanism, structure
from fedkd.auditing.findings import Audited
from fedkd.auditing.verdicts import CONFIDENCE, Claim, Verdict, independent, judge
from fedkd.clock import Notify
from fedkd.config import Experiment
from fedkd.errors import ConfigError
from fedkd.federation.prepare import PreparedExperiment, prepare
from fedkd.jobs.audit import poisoning
from fedkd.jobs.audit.canary_run import load
from fedkd.jobs.audit.claims import claimed
from fedkd.jobs.audit.messages import audit_exchange
from fedkd.jobs.audit.releases import check_releases
from fedkd.jobs.audit.steps import audit_steps
from fedkd.jobs.audit.students import audit_student
from fedkd.methods.core import accounting
from fedkd.privacy.events import Gaussian, Laplace, Protected
from fedkd.reports import audit_report
from fedkd.reports.wording import plural
from fedkd.rows import first, whole
from fedkd.threads import one_intra_op_thread

_HIDING = 200
"""Of a client's records, among which the canaries hide: the noise does not know how many."""


def audit_mechanism(
    *,
    noise_multiplier: float = 1.0,
    draws: int = 20_000,
    delta: float = 1e-5,
    confidence: float = CONFIDENCE,
) -> Audited:
    """Audit the Gaussian and the Laplace mechanism alone, outside any training.

    Raises:
        ValueError: a value is outside its range.
    """
    return _mechanisms(
        [Gaussian("a clipped sum", noise_multiplier), Laplace("a count", noise_multiplier)],
        draws=draws,
        delta=delta,
        confidence=confidence,
    )


def audit_used(prepared: PreparedExperiment, *, confidence: float = CONFIDENCE) -> Audited:
    """Audit the mechanisms that an experiment uses, each alone and at its own noise.

    Without DP there are none.
    """
    privacy = prepared.experiment.privacy
    if privacy.unit == "none":
        return Audited()
    events = accounting.plan(prepared.method, prepared.setting)
    return _mechanisms(events, delta=privacy.delta, confidence=confidence)


def _mechanisms(
    events: Iterable[Protected], *, draws: int = 20_000, delta: float, confidence: float
) -> Audited:
    """The mechanism of each event, equal ones once."""
    alone = {(type(event), event.noise_multiplier): event for event in events}
    coins = rng.stream(0, purpose="audit mechanism")
    verdicts = mechanism.audit(
        list(alone.values()), draws=draws, delta=delta, generator=coins, confidence=confidence
    )
    return Audited(tuple(verdicts))


def audit_teacher(
    experiment: Experiment,
    notify: Notify,
    *,
    canaries: int = 2000,
    confidence: float = CONFIDENCE,
) -> Audited:
    """Audit what a client does to its records: its DP-SGD, and the counts and sums that it sends.

    DP-SGD of one client of each architecture, all rounds; where the method has no teachers, the
    sums alone, and where teachers vote, their votes. No ledger is written: what is trained here
    stays here.

    Raises:
        ConfigError: the experiment claims nothing, or no noise can protect its models.
        BudgetError: the plan costs more than the experiment's budget.
    """
    prepared = prepare(experiment)
    _require_claim(prepared)
    if experiment.privacy.clipping == "layers":
        raise ConfigError(
            "privacy.clipping is 'layers', and a canary is a layer of its own, which moves but a "
            "part of the clip and would show too little: audit the same experiment with 'flat'"
        )
    with one_intra_op_thread():
        found = Audited(checks=tuple(check_releases(prepared)))
        if "sum of gradients" in prepared.method.card.sums:
            return audit_steps(prepared, canaries=canaries, confidence=confidence) + found
        voting = prepared.method.voting(prepared.setting)
        if not prepared.method.card.has_teachers or voting is not None:
            return found
        setting = prepared.setting
        training = experiment.clients.training
        checks = structure.check_training(setting.noise, training, setting.training)
        clients = prepared.setting.first_clients
        verdicts = []
        for done, client in enumerate(clients):
            notify("canaries", done, len(clients))
            spec = experiment.client_model(client)
            fresh = setting.of_client(client).build(spec, purpose="audited", client=client)
            seen = _examples(prepared, client)
            checks.append(structure.check_noise_of(str(spec), fresh, seen, setting.noise))
            verdicts.append(_teacher(prepared, client, canaries, confidence))
        notify("canaries", len(clients), len(clients))
    return Audited(tuple(verdicts), tuple(checks)) + found


def _teacher(
    prepared: PreparedExperiment, client: int, canaries: int, confidence: float
) -> Verdict:
    experiment, setting = prepared.experiment, prepared.setting
    spec = experiment.client_model(client)
    # Where a client holds nothing, canaries hide among others' records.
    hiding = (
        prepared.data.clients[client] if len(prepared.data.clients[client]) else prepared.data.test
    )
    hiding = hiding.seen_by(setting.clients_sight(client))
    model = setting.of_client(client).build(spec, purpose="teacher", client=client)
    observed = dirac.observe(
        model.to(setting.device(client)),
        hiding.subset(torch.arange(min(_HIDING, len(hiding)))),
        experiment.clients.training,
        setting.noise,
        canaries=canaries,
        generator=rng.stream(experiment.seed, purpose="audit canaries", client=client),
        rounds=experiment.rounds,
        like=_examples(prepared, client),
        likelihood=setting.task.likelihood,
    )
    # What the ledger would be charged, not what was seen: steps that nobody pays for must show.
    event = replace(setting.training, steps=setting.training.steps * experiment.rounds)
    claim = Claim.of([event], experiment.privacy.delta)
    what = f"DP-SGD of client {client} ({spec}), {plural(experiment.rounds, 'round')}"
    return judge(
        what,
        independent(observed.members, observed.others, claim, confidence=confidence),
        claim=claim,
        threat=dirac.THREAT,
        canaries=canaries,
        confidence=confidence,
        shortfall=observed.shortfall(what),
    )


def _examples(prepared: PreparedExperiment, client: int) -> Tensor:
    """A few inputs that all parties hold and that a client's models take."""
    setting = prepared.setting
    examples = prepared.data.test.x if setting.examples is None else setting.examples
    return whole(first(setting.clients_view(client, examples), _HIDING))


def _require_claim(prepared: PreparedExperiment) -> None:
    privacy = prepared.experiment.privacy
    if privacy.unit == "none":
        raise ConfigError(
            "privacy.unit is 'none': NO DP, so nothing is claimed that an audit could refute; name "
            "a budget, such as --set privacy.epsilon=8, or see what leaks with 'fedkd audit "
            "exchange'"
        )
    if privacy.unit != "record":
        raise ConfigError(
            f"privacy.unit is {privacy.unit!r} under method {prepared.experiment.method.name!r}: "
            "no teacher learns by DP-SGD there; audit the noise with 'fedkd audit mechanism', or "
            "all with 'fedkd audit report'"
        )


def audit_all(
    folder: Path,
    notify: Notify,
    *,
    count: int = 8,
    confidence: float = CONFIDENCE,
    poisoned: Path | None = None,
) -> Audited:
    """Audit an experiment from the noise to the student, and write `audit.html` into its folder.

    Args:
        folder: of a run that `load.record` made.
        notify: is told how far it is.
        count: reference models for each client; even, >= 2.
        confidence: of all intervals and bounds.
        poisoned: a folder of `poisoning.audit_poisoning`, whose table the page shows too.

    Raises:
        UsageError: nothing was recorded there, or the other folder holds nothing.
        LedgerError: a ledger cannot be believed.
    """
    prepared = load(folder).prepared
    experiment = prepared.experiment
    unit = experiment.privacy.unit
    found = Audited(poisoning=None if poisoned is None else poisoning.load(poisoned))
    found += audit_used(prepared, confidence=confidence)
    if unit == "record":
        found += audit_teacher(experiment, notify, confidence=confidence)
    elif unit != "none":
        found += Audited(checks=tuple(check_releases(prepared)))
    found += audit_exchange(folder, notify, count=count, confidence=confidence)
    found += audit_student(folder, notify, count=count, confidence=confidence)
    claim = claimed(folder, prepared, by_clients=False)
    return replace(found, page=audit_report.write(found, folder, experiment, claim=claim))
