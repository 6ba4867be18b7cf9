"""A federation's processes in tests: started, killed, found again by a mark they carry."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

MARK = "FEDKD_TEST_MARK"
HERE = Path(__file__).parent


def environment(mark, **more):
    """That of this process, with the tests' modules importable and a mark."""
    before = filter(None, [os.environ.get("PYTHONPATH")])
    paths = os.pathsep.join([str(HERE), str(HERE.parent), *before])
    return {**os.environ, "PYTHONPATH": paths, MARK: mark, "COLUMNS": "200", **more}


def start(arguments, log, env):
    """A process that writes to a log."""
    with Path(log).open("ab") as file:
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=env,
            start_new_session=True,
        )


def alive(mark, name=MARK):
    """The processes that were started, by whomever, with this mark: {pid: command line}."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            marked = f"{name}={mark}\0".encode() in (folder / "environ").read_bytes()
            state = (folder / "stat").read_text().rpartition(") ")[2][0]
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it has ended meanwhile
            continue
        if marked and state != "Z" and int(folder.name) != os.getpid():
            found[int(folder.name)] = words
    return found


PATIENCE = 600.0
"""Seconds to wait for what must come: tests wait for events, and no machine is as slow as this."""


def wait_until(condition, within=PATIENCE):
    """What `condition` returns once that is true."""
    end = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < end, f"not after {within} s"
        time.sleep(0.1)
    return found


def kill(process):
    """End a process as a power cut would."""
    process.send_signal(signal.SIGKILL)
    process.wait()
