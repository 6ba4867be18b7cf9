"""What the processes of a deployment share: private folders, one process a folder, no orphans."""

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from fedkd.errors import UsageError

_GRACE = 5.0
_OWN = ("localhost", "127.0.0.1", "::1")
PARENT = "FEDKD_PARENT"
"""Environment: the process without which this one must not go on."""


def private_folder(folder: Path) -> Path:
    """Make a folder that its owner alone can read, or make one that is there such.

    Raises:
        UsageError: it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise UsageError(f"state folder {str(folder)!r}: {error.strerror}") from error
    return folder


def quiet_flower(folder: Path) -> None:
    """Have Flower write under `folder`, install nothing, call nobody, and this machine directly.

    Call it before Flower's processes start; telemetry and update checks are off already.
    """
    os.environ["FLWR_HOME"] = str(private_folder(folder / "flower").resolve())
    os.environ["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] = "1"
    os.environ.setdefault("FLWR_SUPEREXEC_TASK_POLL_INTERVAL", "0.2")
    call_own_directly()
    # Flower starts its parts by name, also where nobody has activated the virtual environment.
    here = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([here, os.environ.get("PATH", os.defpath)])


def call_own_directly() -> None:
    """Have this process and those it starts call this machine past the environment's proxies."""
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    names = [name.strip() for name in given.split(",") if name.strip()]
    # `*` is for all, and to some readers only where it stands alone.
    listed = "*" if "*" in names else ",".join(dict.fromkeys([*names, *_OWN]))
    os.environ |= {"no_proxy": listed, "NO_PROXY": listed}


def free_port() -> int:
    """A port of this machine that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end_with_parent() -> None:
    """Have this process end when the one that `PARENT` names is gone."""
    if (parent := os.environ.get(PARENT)) is not None:
        threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGTERM)


def never_outlive_parent() -> None:
    """End this process by force a little after the one that started it is gone.

    Flower's own parts end then by a signal, which one that waits for the network never looks at.
    """
    threading.Thread(target=_outlive, args=(os.getppid(),), daemon=True).start()


def _outlive(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    time.sleep(_GRACE)
    os._exit(1)
