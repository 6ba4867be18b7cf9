"""A site's process: Flower's SuperNode, and beside it the executor that answers.

The SuperNode only carries messages. What runs on the site's data is the installed app, under the
site's own policy; of the bundle that a server sends nothing is run.
"""

import os
import secrets
import subprocess
import sys
import threading

from fedkd import locks
from fedkd.errors import FederationError, UsageError
from fedkd.federation.compat.supernode import serve_supernode
from fedkd.federation.deploy import processes
from fedkd.federation.deploy.connecting import Voice
from fedkd.federation.deploy.executor import needed
from fedkd.federation.deploy.site import Policy

EXECUTOR = "fedkd.federation.deploy.executor"


def serve(policy: Policy) -> None:
    """Run a site until it is told to stop.

    Raises:
        UsageError: a file is missing, or the site runs already.
        FederationError: the site's own check failed; it said why.
    """
    site = policy.site
    for what, name in (("key", site.key), ("ca", site.ca)):
        if not policy.path(name).is_file():
            raise UsageError(
                f"site {str(policy.file)!r}: {what} = {name!r} is no file; the coordinator's "
                "'fedkd deploy keys' makes it"
            )
    state = processes.private_folder(policy.path(site.state))
    lock = locks.hold(state, "the site")
    processes.quiet_flower(state)
    address = f"127.0.0.1:{processes.free_port()}"
    secret = state / "executor.secret"
    _write_secret(secret)
    executor, stopping = _start_executor(policy, address, secret), threading.Event()
    threading.Thread(target=_end_with, args=(executor, stopping), daemon=True).start()
    arguments = [
        *("--superlink", site.server),
        *("--root-certificates", str(policy.path(site.ca))),
        *("--auth-supernode-private-key", str(policy.path(site.key))),
        *("--host", "127.0.0.1", "--port", address.rpartition(":")[2]),
        *("--isolation", "process", "--superexec-auth-secret-file", str(secret)),
    ]
    try:
        serve_supernode(arguments, state / "node", Voice(site.server))
        # Flower's own threads run on, so that nothing less would end this process.
        sys.stderr.write("error: the connection to the server broke, see above; the site stops\n")
        executor.terminate()
        os._exit(1)
    finally:
        stopping.set()
        executor.terminate()
        executor.wait()
        lock.release()


def _start_executor(
    policy: Policy, address: str, secret: os.PathLike[str]
) -> subprocess.Popen[bytes]:
    reading, writing = os.pipe()
    command = [sys.executable, "-m", EXECUTOR]
    preload = needed(private=policy.cap is not None)
    executor = subprocess.Popen(  # noqa: S603 - our own module
        [*command, str(policy.file), address, str(secret), str(writing), *preload],
        pass_fds=[writing],
        start_new_session=True,  # an interrupt from the keyboard is for the SuperNode to pass on
    )
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        if pipe.read(5) == b"ready":
            return executor
    status = executor.wait()
    if status == UsageError.exit_status:
        raise UsageError(f"site {str(policy.file)!r} will not do, see above")
    raise FederationError(f"site {str(policy.file)!r}: its executor ended with status {status}")


def _write_secret(path: os.PathLike[str]) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(secrets.token_bytes(32))


def _end_with(executor: subprocess.Popen[bytes], stopping: threading.Event) -> None:
    """A SuperNode without its executor would take messages in and never answer."""
    status = executor.wait()
    if stopping.is_set():
        return
    sys.stderr.write(f"error: the site's executor ended with status {status}; the site stops\n")
    os._exit(1)
