"""Following a run from a page in the browser while it goes on, in whatever process it runs."""

import os
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from fedkd.errors import FederationError, FedkdError, UsageError
from fedkd.federation.deploy.serving import Submission
from fedkd.federation.deploy.superlink import Server
from fedkd.jobs.submit import Deployment
from fedkd.names import nearest
from fedkd.reports.live.following import Following
from fedkd.reports.live.server import LiveServer, PageSource
from fedkd.reports.live.standing import ServerNow, Standing
from fedkd.reports.live.view import nothing_yet, view
from fedkd.runs.folder import DEPLOYMENT

_ASK = 2.0
"""Seconds between two questions to a deployment's server."""


class AskedServer:
    """The server of a deployment, asked again and again how it stands. Use it as a context manager.

    Args:
        folder: the run folder.
        state: the server's state folder; None: that of a trial on this machine, if it is one.
    """

    def __init__(self, folder: Path, state: Path | None) -> None:
        self._folder, place = folder, folder.resolve()
        self._state = state or place.parent / f"{place.name}-federation" / "server"
        self._over = threading.Event()
        self._now: ServerNow | None = None
        self._told = 0
        """The run that was told to stop."""
        self._thread = threading.Thread(target=self._keep_asking, daemon=True)

    def __enter__(self) -> Self:
        self._ask()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def now(self) -> ServerNow | None:
        """How it stood when it was last asked; None where there is none."""
        now = self._now
        told = now is not None and bool(now.run) and now.run == self._told
        return replace(now, stopping=True) if now is not None and told else now

    def stop(self, run: int) -> str:
        """Stop a run, if it is the one under way in the folder.

        Raises:
            FederationError: it is not, or the server does not answer.
        """
        self._ask()
        if self._now is None or run != self._now.run or not self._now.may_stop:
            raise FederationError("this run is over, another one was begun, or its server is gone")
        with Server.read(self._state).control() as control:
            control.stop(run)
        self._told = run
        return "The run was told to stop. What is done is kept."

    def _keep_asking(self) -> None:
        while not self._over.wait(_ASK):
            self._ask()

    def _ask(self) -> None:
        try:
            deployment, server = Deployment.read(self._folder), _server(self._state)
            if deployment is None or server is None:
                self._now = None
                return
            with server.control() as control:
                online = {node.name: node.online for node in control.nodes()}
                # A run does not outlive the start of the server that it began in.
                run = deployment.flower if deployment.start == server.start else 0
                status = control.run(run).status if run else ""
            self._now = ServerNow(run=run, status=status, online=online)
        except FedkdError:
            self._now = replace(self._now or ServerNow(), answers=False)


def _server(state: Path) -> Server | None:
    return Server.read(state) if (state / "server.json").is_file() else None


def watched(folder: Path, server: AskedServer) -> PageSource:
    """What a page shows of a run folder, and what may be done there.

    Raises:
        RunFolderError: the folder is there, and is no run folder of a federation.
    """
    following, one_at_a_time = Following(folder), threading.Lock()
    following.look()

    def look() -> dict[str, Any]:
        with one_at_a_time:
            try:
                now = following.look()
            except (FedkdError, OSError) as error:
                return nothing_yet(folder, Standing("damaged", f"It cannot be read: {error}"))
        if now is None:
            return nothing_yet(folder, Standing("waiting", waits(folder)))
        return view(folder, now, server.now())

    def report() -> bytes | None:
        file = folder / "report.html"
        return file.read_bytes() if file.is_file() else None

    return PageSource(look, report, server.stop)


def waits(folder: Path) -> str:
    """That nothing has begun in a folder, with the nearest name beside it if it is not there."""
    beside = folder.parent.iterdir() if folder.parent.is_dir() and not folder.exists() else ()
    near = nearest(folder.name, sorted(each.name for each in beside if each.is_dir()))
    return f"Waiting: no run has begun in {str(folder)!r} yet. {near}".strip()


def _check_state(folder: Path, state: Path | None) -> None:
    """Refuse a server's state folder that has nothing to do with a run.

    Raises:
        UsageError: the folder holds no deployment, or no server was started with the one named.
    """
    if state is None:
        return
    if (folder / "config.toml").is_file() and not (folder / DEPLOYMENT).is_file():
        raise UsageError(f"run folder {str(folder)!r} is no deployment: leave out --state")
    Server.read(state)


def last_submitted(state: Path) -> Path:
    """The run folder of what was submitted last to a server.

    Raises:
        UsageError: no server was started with this state folder, or nothing was submitted.
    """
    submission = Submission.latest(Server.read(state).folder)
    if submission is None:
        raise UsageError(f"{state}: nothing was submitted to this server yet: see 'deploy submit'")
    return Path(submission.folder)


def look_once(folder: Path, *, state: Path | None = None) -> dict[str, Any]:
    """What the page would show now, as JSON values.

    Raises:
        UsageError: as `watch`.
    """
    _check_state(folder, state)
    with AskedServer(folder, state) as server:
        return watched(folder, server).look()


def watch(
    folder: Path,
    *,
    state: Path | None = None,
    port: int = 0,
    browser: bool = True,
    on_start: Callable[[str], None] = lambda _url: None,
) -> None:
    """Serve a page that follows a run, until interrupted by Ctrl-C.

    Args:
        folder: the run folder, which need not be there yet.
        state: the state folder of the server of a deployment, which may then be stopped.
        port: where on 127.0.0.1; 0 takes a free one.
        browser: whether to open it in the user's browser.
        on_start: is told the page's address.

    Raises:
        UsageError: the folder is no run's, the port is taken, or no server has such a state folder.
    """
    _check_state(folder, state)
    with AskedServer(folder, state) as asked, LiveServer(watched(folder, asked), port) as server:
        on_start(server.url)
        with opened(server.url) if browser and _has_screen() else nullcontext():
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                return


@contextmanager
def opened(url: str) -> Iterator[None]:
    """Open an address in the user's browser by way of a file, which nobody else can read.

    What a process is started with every user of a machine can.
    """
    with tempfile.TemporaryDirectory(prefix="fedkd-") as folder:
        file = Path(folder) / "watch.html"
        file.write_text(f'<meta http-equiv="refresh" content="0;url={url}">', "utf-8")
        webbrowser.open(file.as_uri())
        yield


def _has_screen() -> bool:
    """Whether a browser would not take the terminal, as those of text do."""
    named = any(os.environ.get(name) for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"))
    return named or not sys.platform.startswith("linux")
