"""The server's app: what a deployment's rounds run in, on the server's own machine."""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from torch import nn

from fedkd.errors import FedkdError, MessageError, StorageError
from fedkd.federation.answers import Observer
from fedkd.federation.cohort import Connections
from fedkd.federation.deploy.bundle import RUN
from fedkd.federation.deploy.processes import never_outlive_parent
from fedkd.federation.deploy.site import run_name
from fedkd.federation.deploy.superlink import STATE
from fedkd.federation.prepare import PreparedExperiment
from fedkd.federation.rounds import federate
from fedkd.federation.server import Checkpoint, Keeper
from fedkd.federation.wire import LedgerHead, read_ledger_head
from fedkd.files import storing, write_atomically
from fedkd.privacy.ledger import Ledger
from fedkd.threads import cores, one_intra_op_thread, tune_allocator

_DAMAGED = "{!r} is damaged: restore it from a backup of the server's state"
_POLL = 0.3
_RUNS = "runs"


@dataclass(frozen=True)
class Submission:
    """A run that was submitted: what its server's app must know, which no client needs."""

    folder: str
    """The run folder."""
    shared: str
    """The file of what all parties hold."""
    nodes: Mapping[str, int]
    """The clients' nodes by name; client i is the i-th."""

    def write(self, state: Path, run: str) -> None:
        """Leave it where the server's app finds it by the run's name."""
        (state / _RUNS).mkdir(exist_ok=True)
        _failure(state, run).unlink(missing_ok=True)  # an earlier one is over
        write_atomically(state / _RUNS / f"{run}.json", json.dumps(asdict(self)))

    @classmethod
    def read(cls, state: Path, run: str) -> "Submission":
        """What `write` left.

        Raises:
            StorageError: it is damaged.
        """
        file = state / _RUNS / f"{run_name(run)}.json"
        try:
            return cls(**_read(file))
        except TypeError as error:
            raise StorageError(_DAMAGED.format(str(file))) from error

    @classmethod
    def latest(cls, state: Path) -> "Submission | None":
        """What was submitted last to a server; None where nothing was.

        Raises:
            StorageError: it is damaged.
        """
        files = (state / _RUNS).glob("*.json")
        last = max(files, key=lambda file: file.stat().st_mtime, default=None)
        return None if last is None else cls.read(state, last.stem)


Main = Callable[[Submission, Callable[..., nn.Module]], None]
"""Runs a submission; is given `federate` for a prepared experiment, a keeper and an observer."""


def server_app(main: Main) -> ServerApp:
    """The Flower app of a server."""
    app = ServerApp()

    @app.main()
    def serve(grid: Grid, context: Context) -> None:
        never_outlive_parent()
        state = Path(os.environ[STATE])
        run = str(context.run_config[RUN])
        try:
            submission = Submission.read(state, run)
            main(submission, partial(_federate, grid, state, submission))
        except FedkdError as error:
            # The run folder's disk may be what failed, so that nothing can be said there.
            with suppress(StorageError):
                write_atomically(_failure(state, run), json.dumps([str(error), error.exit_status]))
            raise

    return app


def read_failure(state: Path, run: str) -> tuple[str, int] | None:
    """Why a run ended, and with which exit status, as its server's app left it, if it did.

    Args:
        state: the server's state folder.
        run: the run's name.
    """
    try:
        error, status = json.loads(_failure(state, run).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return str(error), int(status)


def _failure(state: Path, run: str) -> Path:
    return state / _RUNS / f"{run_name(run)}.failure"


def _federate(
    grid: Grid,
    state: Path,
    submission: Submission,
    prepared: PreparedExperiment,
    keeper: Keeper,
    observer: Observer,
) -> nn.Module:
    nodes = tuple(submission.nodes.values())
    file = state / "standings.json"
    heads = _read_heads(file)
    tune_allocator()
    with one_intra_op_thread():
        return federate(
            grid,
            prepared,
            _Remembering(keeper, file, nodes),
            observer,
            threads=cores(),
            ledger=partial(Ledger, state / "ledger.db"),
            connections=Connections(nodes=nodes, poll=_POLL),
            ledger_heads={
                i: heads[str(node)] for i, node in enumerate(nodes) if str(node) in heads
            },
        )


class _Remembering:
    """A keeper that also remembers, over all runs, where each client's ledger stood."""

    def __init__(self, keeper: Keeper, file: Path, nodes: tuple[int, ...]) -> None:
        self.resume = keeper.resume
        self._keep = keeper.keep
        self._file = file
        self._nodes = nodes

    def keep(self, record: dict[str, Any], checkpoint: Checkpoint, generated: Any) -> None:
        """See `Keeper.keep`."""
        with storing(self._file), FileLock(f"{self._file}.lock"):  # other runs remember too
            heads = _read_heads(self._file)
            for client, at in checkpoint.ledger_heads.items():
                node = str(self._nodes[client])
                if node not in heads or heads[node].sequence < at.sequence:
                    heads[node] = at
            content = {node: asdict(at) for node, at in heads.items()}
            write_atomically(self._file, json.dumps(content))
        self._keep(record, checkpoint, generated)


def _read_heads(file: Path) -> dict[str, LedgerHead]:
    """Where all clients' ledgers stood, by node.

    Raises:
        StorageError: it is damaged, be it in what it says of others than this run's.
    """
    try:
        return {node: read_ledger_head(dict(at)) for node, at in _read(file).items()}
    except (MessageError, TypeError, ValueError) as error:
        raise StorageError(_DAMAGED.format(str(file))) from error


def _read(file: Path) -> dict[str, Any]:
    """A JSON object that this server wrote; nothing where there is none.

    Raises:
        StorageError: it is damaged.
    """
    if not file.exists():
        return {}
    try:
        with storing(file):
            content = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise StorageError(_DAMAGED.format(str(file))) from error
    if not isinstance(content, dict):
        raise StorageError(_DAMAGED.format(str(file)))
    return content
