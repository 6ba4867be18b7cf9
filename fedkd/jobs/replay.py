"""Replaying an asynchronous run from its log: who answered when, and the same bits."""

from pathlib import Path

from fedkd.config import Experiment, Robust
from fedkd.errors import FederationError, RunFolderError
from fedkd.federation.asynchronous.log import Logged
from fedkd.files import storing
from fedkd.runs.common import differing
from fedkd.runs.folder import RunFolder
from fedkd.runs.reading import read

_FREE = {"name", "engine", "output", "robust"}
_STUDENT = "student.safetensors"


def script(run: Path, experiment: Experiment) -> Logged:
    """Who answers when by the log of a finished run, simulated or deployed.

    Raises:
        RunFolderError: it is none, is of another experiment, or no log fixes its bits.
    """
    if experiment.clients.asynchronous is None:
        raise _cannot(run, "a run without clients.asynchronous has no order that a log must tell")
    if experiment.privacy.unit != "none":
        raise _cannot(run, f"the noise of privacy.unit = {experiment.privacy.unit!r} is drawn anew")
    there = read(run).experiment
    keys = differing(experiment, there, free=_FREE)
    if keys or experiment.robust != as_there(run, there).robust:
        found = ", ".join(keys or ["robust"])
        raise _cannot(run, f"it is of another experiment, which differs in {found}")
    try:
        return Logged.of(RunFolder(run).records())
    except RunFolderError as error:
        raise _cannot(run, str(error)) from error


def as_there(run: Path, experiment: Experiment) -> Experiment:
    """The experiment with what a deployment does about clients by itself, if the run was one.

    Raises:
        RunFolderError: it is no finished run.
    """
    if experiment.robust is not None or not read(run).deployed:
        return experiment
    return experiment.model_copy(update={"robust": Robust()})


def check_student(run: Path, folder: Path) -> None:
    """Refuse a replay that did not lead to the very student of the run.

    Raises:
        FederationError: it is another one.
        StorageError: one of them cannot be read.
    """
    students = []
    for each in (run, folder):
        with storing(each / _STUDENT):
            students.append((each / _STUDENT).read_bytes())
    if students[0] != students[1]:
        raise FederationError(
            f"the student of {str(folder)!r} is not that of {str(run)!r}, whose answers it "
            "replayed: expected the same data, versions and kind of device, and no client that "
            "failed after it had trained"
        )


def _cannot(run: Path, why: str) -> RunFolderError:
    return RunFolderError(f"run folder {str(run)!r} cannot be replayed: {why}")
