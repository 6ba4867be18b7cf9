"""Audits of the mechanisms and of teachers, and of all that an experiment does."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from fedkd import rng
from fedkd.audit import dirac, mechanism, structure
from fedkd.audit.verdicts import CONFIDENCE, Claim, Verdict, independent, judge
from fedkd.config import Experiment
from fedkd.errors import ConfigError
from fedkd.federation.engines import one_intra_op_thread
from fedkd.federation.world import World, prepare
from fedkd.methods.setting import Notify
from fedkd.runs import audit_report
from fedkd.runs.audited import Audited
from fedkd.runs.claims import claimed
from fedkd.runs.exchange import audit_exchange
from fedkd.runs.exposed import exposed
from fedkd.runs.students import audit_student
from fedkd.runs.words import plural

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
    coins = rng.stream(0, purpose="audit mechanism")
    verdicts = mechanism.audit(
        noise_multiplier, draws=draws, delta=delta, generator=coins, confidence=confidence
    )
    return Audited(tuple(verdicts))


def audit_teacher(
    experiment: Experiment,
    notify: Notify,
    *,
    canaries: int = 2000,
    confidence: float = CONFIDENCE,
) -> Audited:
    """Audit DP-SGD as an experiment configures it: one client of each architecture, all rounds.

    No ledger is written: what is trained here stays here.

    Raises:
        ConfigError: the experiment claims nothing, or no noise can protect its models.
        BudgetError: the plan costs more than the experiment's budget.
    """
    world = prepare(experiment)
    _require_claim(world)
    setting = world.setting
    training = experiment.clients.training
    clients = list(_one_of_each(world))
    verdicts = []
    with one_intra_op_thread():
        checks = structure.check_training(setting.noise, training, setting.training)
        for done, client in enumerate(clients):
            notify("canaries", done, len(clients))
            verdicts.append(_teacher(world, client, canaries, confidence))
        notify("canaries", len(clients), len(clients))
    return Audited(tuple(verdicts), tuple(checks))


def _teacher(world: World, client: int, canaries: int, confidence: float) -> Verdict:
    experiment, setting = world.experiment, world.setting
    spec, held = experiment.client_model(client), len(world.data.clients[client])
    observed = dirac.observe(
        setting.build(spec, purpose="teacher", client=client),
        world.data.clients[client].subset(torch.arange(min(_HIDING, held))),
        experiment.clients.training,
        setting.noise,
        canaries=canaries,
        generator=rng.stream(experiment.seed, purpose="audit canaries", client=client),
        rounds=experiment.rounds,
    )
    # What the ledger would be charged, not what was seen: steps that nobody pays for must show.
    event = replace(setting.training, steps=setting.training.steps * experiment.rounds)
    claim = Claim.of([event], experiment.privacy.delta)
    return judge(
        f"DP-SGD of client {client} ({spec}), {plural(experiment.rounds, 'round')}",
        independent(observed.members, observed.others, claim, confidence=confidence),
        claim=claim,
        threat=dirac.THREAT,
        canaries=canaries,
        confidence=confidence,
    )


def _one_of_each(world: World) -> Iterator[int]:
    """The first client of each architecture."""
    seen = set()
    for client in range(world.setting.clients):
        spec = str(world.experiment.client_model(client))
        if spec not in seen:
            seen.add(spec)
            yield client


def _require_claim(world: World) -> None:
    privacy = world.experiment.privacy
    if privacy.unit == "none":
        raise ConfigError(
            "privacy.unit is 'none': NO DP, so nothing is claimed that an audit could refute; name "
            "a budget, such as --set privacy.epsilon=8, or see what leaks with 'fedkd audit "
            "exchange'"
        )
    if privacy.unit != "record" or not world.method.card.has_teachers:
        raise ConfigError(
            f"privacy.unit is {privacy.unit!r} under method {world.experiment.method.name!r}: no "
            "teacher learns by DP-SGD there; audit the noise with 'fedkd audit mechanism'"
        )


def audit_all(
    folder: Path, notify: Notify, *, count: int = 8, confidence: float = CONFIDENCE
) -> Audited:
    """Audit an experiment from the noise to the student, and write `audit.html` into its folder.

    Args:
        folder: of a run that `exposed.record` made.
        notify: is told how far it is.
        count: reference models for each client; even, >= 2.
        confidence: of all intervals and bounds.

    Raises:
        UsageError: nothing was recorded there.
        LedgerError: a ledger cannot be believed.
    """
    told = exposed(folder)
    experiment, unit = told.world.experiment, told.world.experiment.privacy.unit
    found = audit_mechanism(
        noise_multiplier=experiment.privacy.noise_multiplier or 1.0,
        delta=experiment.privacy.delta,
        confidence=confidence,
    )
    if unit == "record" and told.world.method.card.has_teachers:
        found += audit_teacher(experiment, notify, confidence=confidence)
    found += audit_exchange(folder, notify, count=count, confidence=confidence)
    found += audit_student(folder, notify, count=count, confidence=confidence)
    claim = claimed(folder, told.world, by_clients=False)
    audit_report.write(found, folder, title=experiment.name, claim=claim)
    return found
