"""Submitting an experiment to a server that runs, and following it to its true end."""

import json
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from fedkd import config, data, tasks
from fedkd.config import Experiment
from fedkd.data import shared_file
from fedkd.errors import BudgetError, ConfigError, FederationError, FedkdError, UsageError
from fedkd.federation.answers import Observer
from fedkd.federation.deploy import bundle
from fedkd.federation.deploy.control import DONE, Control
from fedkd.federation.deploy.serving import Submission, read_failure
from fedkd.federation.deploy.superlink import Server
from fedkd.federation.prepare import PreparedExperiment, prepare
from fedkd.files import write_atomically
from fedkd.reports import shortfall
from fedkd.runs.common import locked, read_json
from fedkd.runs.folder import DEPLOYMENT, RunFolder
from fedkd.runs.manifest import cannot_resume
from fedkd.runs.under_way.progress import FILE as PROGRESS
from fedkd.runs.under_way.progress import Follower

_POLL, _ASK = 0.3, 2.0
"""Seconds between two looks at what happened, and at how the run stands."""
_SILENCE = 20.0
"""Seconds without an answer after which a server counts as gone."""


@dataclass(frozen=True)
class Deployment:
    """`deployment.json`: what makes a run folder go on where it stopped."""

    run: str
    """The run's name at the sites, under which they keep their teachers; 32 hexadecimal digits."""
    shared: str
    """The SHA-256 of what all parties hold."""
    clients: dict[str, int]
    """The clients' nodes by name; client i is the i-th."""
    flower: int
    """Flower's number for it, another one each time that it goes on; 0 until it has one."""
    start: str
    """The server's start that it runs in; a run does not outlive it."""

    @classmethod
    def read(cls, folder: Path) -> "Deployment | None":
        """That of a run folder, if it has one.

        Raises:
            RunFolderError: it is damaged.
        """
        if not (folder / DEPLOYMENT).exists():
            return None
        try:
            return cls(**read_json(folder, DEPLOYMENT))
        except TypeError as error:
            raise cannot_resume(folder, f"its {DEPLOYMENT} is damaged") from error

    def write(self, folder: Path) -> None:
        """Keep it in a run folder."""
        write_atomically(folder / DEPLOYMENT, json.dumps(asdict(self), indent=2) + "\n")


def share(experiment: Experiment, file: Path | None = None) -> bytes:
    """What all parties hold: from a file that was made before, or from the experiment's `[data]`.

    Raises:
        UsageError: the data or the file will not do.
    """
    if file is not None:
        scale, wanted = shared_file.read_shared(file).scale, experiment.data
        other = any(scale.get(column) != limits for column, limits in wanted.limits.items())
        if other or bool(scale) != bool(wanted.limits or wanted.scale):
            raise UsageError(
                f"{file}: was made with other data.limits or data.scale than the experiment has, "
                "by which sites scale their rows: make it again by 'fedkd deploy share'"
            )
        return file.read_bytes()
    targets = tasks.find(experiment.task.name).targets
    return shared_file.to_bytes(data.shared(experiment.data, seed=experiment.seed, targets=targets))


def app(experiment: Experiment, shared: bytes, clients: int) -> tuple[str, str]:
    """The bundle's one file, and the experiment in it as it travels.

    Raises:
        ConfigError: the experiment will not do, or names another number of clients.
    """
    text = bundle.for_wire(_prepare(experiment, shared, clients).experiment, clients)
    return bundle.pyproject(experiment.name, text, sha256(shared).hexdigest()), text


def submit(
    experiment: Experiment,
    server: Server,
    folder: Path,
    observer: Observer,
    *,
    shared: Path | None = None,
    clients: Sequence[str] = (),
    resume: bool = False,
    detach: bool = False,
    on_start: Callable[[Sequence[str]], None] = lambda _names: None,
) -> dict[str, Any] | None:
    """Run an experiment on a server into a run folder, as `simulate` does on one machine.

    Args:
        experiment: what to run.
        server: where.
        folder: the run folder; it must not exist unless `resume` is on.
        observer: is told what happens.
        shared: the file of what all parties hold; None makes it from the experiment's `[data]`.
        clients: who takes part, by name; all that the server knows unless given.
        resume: go on after the last finished round; follow the run if it runs still.
        detach: come back once it is started.
        on_start: is told who takes part, by name; client i is the i-th.

    Returns:
        The summary, as in `summary.json`; None if detached.

    Raises:
        UsageError: the experiment, the folder, the server or a client's name will not do.
        BudgetError: a privacy budget did not allow the run to go on.
        FederationError: the run ended otherwise, or the server is gone.
    """
    content = share(experiment, shared)
    with server.control() as control, ExitStack() as held:
        inner = folder / "checkpoints"  # the server's app takes the run folder itself
        begun = resume and inner.is_dir()
        if begun:
            held.enter_context(locked(inner))
        before = Deployment.read(folder) if resume else None
        nodes = _choose(control, list(before.clients) if before else clients)
        if before and (nodes != before.clients or not set(clients) <= set(nodes)):
            raise UsageError(
                f"run folder {str(folder)!r} was begun by {', '.join(before.clients)}, and these "
                "are not the same clients and keys now: start again with another --out"
            )
        if before and _runs_still(control, server, before):
            deployment = before
        else:
            prepared = _prepare(experiment, content, len(nodes))
            run = RunFolder(folder)
            found = prepared.setting.devices
            run.open(prepared.experiment, prepared.data, resume=resume, devices=found)
            if not begun:
                held.enter_context(locked(inner))
            deployment = _start(control, server, run, prepared, content, nodes, before)
        held.close()
        on_start(list(nodes))
        if detach:
            return None
        try:
            _follow(control, server, deployment, Follower(folder), observer)
        except KeyboardInterrupt:
            with suppress(FederationError):  # its server may be gone
                control.stop(deployment.flower)
            raise
    summary = dict(json.loads((folder / "summary.json").read_text("utf-8")))
    shortfall.of_federation(summary, config.load(folder / "config.toml"))
    return summary


def _runs_still(control: Control, server: Server, run: Deployment) -> bool:
    return bool(run.flower) and run.start == server.start and not control.run(run.flower).over


def _choose(control: Control, clients: Sequence[str]) -> dict[str, int]:
    known = {node.name: node.id for node in control.nodes()}
    if not known:
        raise UsageError("the server knows no client yet: see 'fedkd deploy status'")
    for name in clients:
        if name not in known:
            raise UsageError(
                f"the server knows no client {name!r}: it knows {', '.join(known) or 'none'}"
            )
    return {name: known[name] for name in (sorted(set(clients)) or known)}


def _prepare(experiment: Experiment, content: bytes, clients: int) -> PreparedExperiment:
    """The experiment as the server sees it: complete, checked, without anybody's data."""
    shared = shared_file.seen_from(shared_file.parse_shared(content), clients, samples={})
    prepared = prepare(bundle.counted(experiment, clients), shared)
    if prepared.method.card.simulation_only:
        raise ConfigError(
            f"method {experiment.method.name!r} runs in a simulation only: it needs all clients' "
            "data in one place"
        )
    return prepared


def _start(
    control: Control,
    server: Server,
    run: RunFolder,
    prepared: PreparedExperiment,
    content: bytes,
    nodes: dict[str, int],
    before: Deployment | None,
) -> Deployment:
    digest = sha256(content).hexdigest()
    if before and before.shared != digest:
        raise UsageError(
            f"run folder {str(run.path)!r} was begun with another proxy set or test set: restore "
            "it, or start again with another --out"
        )
    name = before.run if before else secrets.token_hex(16)
    file = server.folder / "shared" / f"{digest}.safetensors"
    file.parent.mkdir(exist_ok=True)
    write_atomically(file, content)
    Submission(str(run.path.resolve()), str(file), nodes).write(server.folder, name)
    text = bundle.for_wire(prepared.experiment, len(nodes))
    project = bundle.pyproject(prepared.experiment.name, text, digest)
    (run.path / PROGRESS).unlink(missing_ok=True)  # an earlier failure is over
    deployment = Deployment(name, digest, nodes, 0, server.start)
    deployment.write(run.path)  # before: whoever resumes finds the run's name
    flower = control.start({"pyproject.toml": project.encode()}, {bundle.RUN: name})
    deployment = replace(deployment, flower=flower)
    deployment.write(run.path)
    return deployment


def _follow(
    control: Control, server: Server, run: Deployment, follower: Follower, observer: Observer
) -> None:
    """Pass on what happens until the run is over, and make sure that it ended well.

    Raises:
        FedkdError: it did not.
    """
    heard, status = time.monotonic(), ""
    while not status.startswith("finished"):
        end = time.monotonic() + _ASK
        while time.monotonic() < end:
            follower.pass_on(observer)
            time.sleep(_POLL)
        try:
            status = control.run(run.flower).status
            heard = time.monotonic()
        except FederationError:
            if time.monotonic() - heard > _SILENCE:
                raise
    follower.pass_on(observer)
    if status == DONE:
        return
    if failure := follower.failure or read_failure(server.folder, run.run):
        text, exit_status = failure
        raise _ERRORS.get(exit_status, FederationError)(text)
    raise FederationError(
        f"the run ended as {status!r} without a word: it was stopped, or its server was; go on "
        "with --resume"
    )


_ERRORS: dict[int, type[FedkdError]] = {
    UsageError.exit_status: UsageError,  # a StorageError's is the same
    BudgetError.exit_status: BudgetError,
}
