"""Audit what anybody can read from a released student, and from what its generator drew."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedkd import config, rng
from fedkd.auditing import membership, references
from fedkd.auditing.findings import Audited
from fedkd.auditing.membership import Attack, AttackedAnswers
from fedkd.auditing.scores import check_task, odds_of
from fedkd.auditing.verdicts import CONFIDENCE, Claim
from fedkd.clock import Notify
from fedkd.data.types import Samples, joined
from fedkd.errors import UsageError
from fedkd.exchange.codec import decode
from fedkd.federation.prepare import PreparedExperiment, prepare
from fedkd.jobs.audit.canary_run import has_canaries, load
from fedkd.jobs.audit.claims import claimed
from fedkd.jobs.audit.messages import FitReference, counted, fit
from fedkd.learning import evaluate
from fedkd.rows import whole
from fedkd.runs import reading
from fedkd.runs.common import check_code
from fedkd.threads import one_intra_op_thread

_OUTSIDER = "outsider: has the released student, knows its training, and trains reference models"
_COLLECTOR = "outsider: has images that the server's generator drew"
_MOST = 2000
"""Records of each kind that are asked about where nobody tossed for them."""


def audit_student(
    run: Path,
    notify: Notify,
    *,
    count: int = 8,
    confidence: float = CONFIDENCE,
    train: FitReference = fit,
) -> Audited:
    """Ask a run's student, and its generator's images, who was among the private records.

    Of a run that `fedkd audit exchange` made the candidates are asked about. Of any other run the
    clients' records are held against test records; nobody tossed for these, so there is no bound.

    Args:
        run: a finished run's folder.
        notify: is told how far it is.
        count: reference models; even, >= 2.
        confidence: of all intervals and bounds.
        train: trains reference models.

    Raises:
        UsageError: it is no finished run, its data is not here, no attack knows its task, or its
            ledger is of another data set.
        LedgerError: a ledger cannot be believed.
    """
    reading.read(run)  # says what is missing
    asked, tossed = _asked(run), has_canaries(run)
    inside, outside = int(asked.included.sum()), int((~asked.included).sum())
    if min(inside, outside) < membership.FEWEST // 2:
        raise UsageError(
            f"NO POWER: run {str(run)!r} has {inside} private records and {outside} others to ask "
            f"about: expected at least {membership.FEWEST // 2} of each"
        )
    claim = claimed(run, asked.prepared, by_clients=False)
    with one_intra_op_thread():
        answers = _answers(asked, released(run, asked.prepared), count, notify, train)
    attacks = membership.attack(
        {-1: answers},
        "the student",
        _OUTSIDER,
        claim=claim,
        offline=True,
        tossed=tossed,
        confidence=confidence,
    )
    drawn = _by_generator(run, asked, claim, tossed=tossed, confidence=confidence)
    notes = [] if drawn else ["the generator: not tried, this run drew no images"]
    if not tossed:
        notes.append(
            "no bound on epsilon: nobody tossed for which records are private; 'fedkd audit "
            "exchange' runs the experiment again and does",
        )
    return Audited(attacks=(*attacks, *drawn), notes=tuple(notes))


@dataclass(frozen=True)
class _Asked:
    """Whom an attacker asks about, of each record what the student sees."""

    prepared: PreparedExperiment
    base: Samples
    """Private records that are not asked about, from which references learn too."""
    records: Samples
    included: NDArray[np.bool_]
    foreign: Samples
    """Records that nobody learnt."""


def _asked(run: Path) -> _Asked:
    if has_canaries(run):
        canary_run = load(run)
        view = canary_run.prepared.in_students_view.data
        rests = (data.subset(canary_run.base(i)) for i, data in enumerate(view.clients))
        every = canary_run.candidates.values()
        records = joined(*(each.samples for each in every))
        return _Asked(
            canary_run.prepared,
            joined(*rests),
            Samples(canary_run.prepared.setting.students_view(records.x), records.y),
            torch.cat([each.included for each in every]).numpy(),
            view.test,
        )
    experiment = config.load(run / "config.toml")
    check_code(run, config.specs_in(experiment), experiment.task.name, experiment.method.name)
    prepared = prepare(experiment)
    check_task(prepared.setting.task)
    _check_partition(run, prepared)
    view = prepared.in_students_view.data
    pooled, test = view.pooled(), view.test
    draws = rng.stream(prepared.experiment.seed, purpose="audit records")
    pool_order, test_order = (torch.randperm(len(each), generator=draws) for each in (pooled, test))
    foreign = test.subset(test_order[: len(test) // 4])
    size = min(_MOST, len(pooled), len(test) - len(foreign))
    others = test.subset(test_order[len(foreign) : len(foreign) + size])
    asked = joined(pooled.subset(pool_order[:size]), others)
    included = np.repeat([True, False], [size, len(others)])
    return _Asked(prepared, pooled.subset(pool_order[size:]), asked, included, foreign)


def _check_partition(run: Path, prepared: PreparedExperiment) -> None:
    partition = reading.read(run).partition
    if (
        partition is not None
        and [list(row) for row in partition.counts] != prepared.data.counts().tolist()
    ):
        raise UsageError(
            f"run {str(run)!r} was made from other data than its config.toml finds here: its "
            "partition.json differs; restore the data"
        )


def _answers(
    asked: _Asked, student: nn.Module, count: int, notify: Notify, train: FitReference
) -> AttackedAnswers:
    prepared, foreign = asked.prepared.in_students_view, asked.foreign
    sure = odds_of(prepared.setting.task)
    known = references.train(
        partial(train, prepared, prepared.experiment.student.model, None, 1),
        asked.base,
        asked.records,
        foreign,
        count=count,
        generator=rng.stream(prepared.experiment.seed, purpose="audit references"),
        advance=counted(notify, "reference students", count),
        odds=sure,
    )
    odds, others = (
        sure(evaluate.answers(student, each.x), each.y) for each in (asked.records, foreign)
    )
    return AttackedAnswers(odds, asked.included, others, known)


def _by_generator(
    run: Path, asked: _Asked, claim: Claim | None, *, tossed: bool, confidence: float
) -> list[Attack]:
    """Records near to what a generator drew: Chen et al. 2020, arXiv:1909.03935."""
    generated = reading.read_generated(run)
    if generated is None:
        return []
    images = torch.from_numpy(np.asarray(generated.x, dtype=np.float32)).flatten(1)
    nearest = torch.cdist(whole(asked.records.x).flatten(1), images).min(dim=1).values
    scores = -nearest.double().numpy()
    return [
        membership.one_attack(
            "nearest image",
            "the generator",
            _COLLECTOR,
            scores,
            asked.included,
            claim=claim,
            tossed=tossed,
            confidence=confidence,
        )
    ]


def released(run: Path, prepared: PreparedExperiment) -> nn.Module:
    """The student of a finished run."""
    student = prepared.setting.student.build(prepared.experiment.student.model, purpose="student")
    student.load_state_dict(decode((run / "student.safetensors").read_bytes()))
    return student.eval()
