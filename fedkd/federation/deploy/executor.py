"""The process beside a site's SuperNode that answers its messages, each in a process of its own.

Flower starts a new Python for each message, runs whatever code the server's bundle names, and
imports torch anew. Here the library is imported once, each message gets a fork of that, and the
fork runs the installed app and no other. Run by `supernode.py`.
"""

import logging
import multiprocessing
import os
import sys
import time
from functools import partial
from multiprocessing.context import ForkServerProcess as Process
from pathlib import Path

from fedkd.errors import FedkdError
from fedkd.federation.compat.tasks import ANSWERING, execute_tasks, run_client_task
from fedkd.federation.deploy.processes import never_outlive_parent
from fedkd.federation.deploy.site import Policy

_GRACE = 30.0
"""Seconds that an answer has beyond the site's limit to say that it took too long."""
# torch imports the second at a process's first step, for over a second.
_APP = ("fedkd.federation.deploy.siteapp", "torch._dynamo", ANSWERING)
_PRIVATE = ("dp_accounting.pld.privacy_loss_distribution",)


def needed(*, private: bool) -> tuple[str, ...]:
    """The modules that each answer needs; with those for an answer under differential privacy."""
    return (*_APP, *_PRIVATE) if private else _APP


def main(file: str, address: str, secret: str, ready: str, *preload: str) -> None:
    """Check the site, say so, then answer until the parent is gone.

    Args:
        file: the SITE.toml.
        address: of the SuperNode's Runtime API.
        secret: the file of the secret that it asks for.
        ready: the number of a pipe, to be written to once the site has been checked.
        preload: modules to import once for all answers.
    """
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(list(preload))
    check = processes.Process(target=_check, args=(file,))
    check.start()
    check.join()
    if check.exitcode:
        sys.exit(check.exitcode)
    try:
        os.write(int(ready), b"ready")
    except BrokenPipeError:  # the SuperNode was stopped meanwhile
        return

    running: dict[Process, float] = {}

    def start(token: str) -> None:
        process = processes.Process(
            target=_answer, args=(file, address, token, os.getpid()), daemon=True
        )
        process.start()
        seconds = Policy.load(Path(file)).site.limits.seconds
        running[process] = time.monotonic() + seconds + _GRACE

    def look() -> None:
        """Kill an answer that nothing else could end in time."""
        for process, end in list(running.items()):
            if not process.is_alive():
                del running[process]
            elif time.monotonic() > end:
                process.kill()

    key = Path(secret).read_bytes()
    execute_tasks(start, look, address=address, secret=key, parent=os.getppid())


def _check(file: str) -> None:
    """Look at what the site's file names, while somebody is there to read a complaint."""
    from fedkd.data.shared_file import read_shared
    from fedkd.federation.deploy.siteapp import ledger, own_data
    from fedkd.privacy.ledger import Ledger

    log = _log_here()
    try:
        policy = Policy.load(Path(file))
        site = policy.site
        shared = read_shared(policy.path(site.shared))
        samples = own_data(policy, shared)
        if ledger(policy).exists():
            Ledger(ledger(policy))
    except FedkdError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_status)
    public = "no proxy set" if shared.public is None else f"a proxy set of {len(shared.public)}"
    log.info("%s: %d samples of %s", site.name, len(samples), site.data.path)
    log.info("shared with all parties: %s, %d to test on", public, len(shared.test))
    log.info(
        "allows %s; %s; at most %d rounds, %g s and %d bytes a round",
        ", ".join(site.allow.methods),
        f"{policy.cap} in all" if policy.cap else "NO DP: experiments may run unprotected",
        site.limits.rounds,
        site.limits.seconds,
        site.limits.bytes,
    )


def _answer(file: str, address: str, token: str, parent: int) -> None:
    from fedkd.federation.client import client_app
    from fedkd.federation.deploy import siteapp
    from fedkd.threads import tune_allocator

    never_outlive_parent()
    _log_here()
    tune_allocator()
    if (score := Path("/proc/self/oom_score_adj")).exists():
        score.write_text("1000")  # whatever an experiment asks for, this is what memory runs out on
    app = client_app(partial(siteapp.party, Path(file)), partial(siteapp.within, Path(file)))
    run_client_task(app, address=address, token=token, parent=parent)


def _log_here() -> logging.Logger:
    """Log fedkd's own words to this site's terminal, and nowhere else."""
    log = logging.getLogger("fedkd")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.addHandler(handler)
    log.propagate = False
    log.setLevel(logging.INFO)
    return log


if __name__ == "__main__":
    main(*sys.argv[1:])
