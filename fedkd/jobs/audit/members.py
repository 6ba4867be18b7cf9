"""What an attacker gets of each run of a comparison: who was among the private records.

Each experiment runs once more, with candidates and a server that keeps what it is sent; so figures
of the compared run are of all records, and of a proxy set without candidates.
"""

import hashlib
import shutil
from collections.abc import Hashable, Sequence
from pathlib import Path

from torch import Tensor, nn

from fedkd.auditing.membership import Attack
from fedkd.config import Experiment, ModelSpec
from fedkd.data.types import Samples
from fedkd.federation.answers import Observer
from fedkd.federation.prepare import PreparedExperiment
from fedkd.files import write_atomically
from fedkd.jobs.audit import messages, observed, recording
from fedkd.jobs.audit.canary_run import Canaries, has_canaries, load, record
from fedkd.jobs.audit.messages import FitReference
from fedkd.jobs.audit.students import audit_student
from fedkd.rows import whole
from fedkd.runs.members import MEMBERS, Members
from fedkd.threads import one_intra_op_thread

REFERENCES = 4
"""Reference models for each client, and for the student."""


def audit_members(
    experiment: Experiment, run: Path, folder: Path, observer: Observer, train: FitReference
) -> None:
    """Attack a run by its experiment run again, and write what came of it into the run's folder.

    Args:
        experiment: the run's.
        run: its folder.
        folder: for the run with candidates. One that was cut off there is made anew.
        observer: is told how far that is.
        train: trains reference models, such as `shared`.

    Raises:
        UsageError: a client holds too few records for any power, or no attack knows the task.
        FederationError: as `simulate`.
    """
    # Records that are held out for scores are learnt by nobody, so they would pass for others.
    clients = experiment.clients.model_copy(update={"test_share": None})
    if not has_canaries(folder):
        shutil.rmtree(folder, ignore_errors=True)
        record(experiment.model_copy(update={"clients": clients}), Canaries(), folder, observer)
    canaries = load(folder)
    sent = None
    if not observed.why_unreadable(canaries.prepared):
        kept = recording.read_messages(folder)
        with one_intra_op_thread():
            attacks = messages.attack_members(
                folder, canaries, kept, _unheard, count=REFERENCES, train=train
            )
        sent = _area(attacks)
    released = audit_student(folder, _unheard, count=REFERENCES, train=train)
    found = Members(sent=sent, student=_area(released.attacks))
    write_atomically(run / MEMBERS, found.model_dump_json() + "\n")


def shared() -> FitReference:
    """Trains each reference model once: methods that are compared have the same, seed by seed.

    One is known by all that its training depends on: the model, the data, how it is trained, and
    under DP the noise.
    """
    known: dict[Hashable, nn.Module] = {}

    def train(
        prepared: PreparedExperiment,
        spec: ModelSpec,
        client: int | None,
        rounds: int,
        samples: Samples,
        number: int,
    ) -> nn.Module:
        experiment = prepared.experiment
        training, privacy = experiment.clients.training, experiment.privacy
        setting = (each.model_dump_json() for each in (training, privacy))
        place = (experiment.seed, str(spec), client, rounds, number)
        votes = prepared.method.voting(prepared.setting)
        key = (*place, *setting, votes is None, _digest(samples))
        if key not in known:
            known[key] = messages.fit(prepared, spec, client, rounds, samples, number)
        return known[key]

    return train


def _area(attacks: Sequence[Attack]) -> float:
    """The area under LiRA's curve, to what some hundred candidates can tell."""
    [found] = [each.roc.auc.value for each in attacks if each.name == "LiRA"]
    return round(found, 3)


def _digest(samples: Samples) -> str:
    found = hashlib.sha256()
    for part in (whole(samples.x), samples.y):
        columns = {"": part} if isinstance(part, Tensor) else part
        for name, column in columns.items():
            found.update(name.encode() + column.contiguous().numpy().tobytes())
    return found.hexdigest()


def _unheard(_phase: str, _done: int, _total: int) -> None:
    pass
