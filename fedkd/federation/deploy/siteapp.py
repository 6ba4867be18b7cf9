"""The client's app at a site: what came from the server against what the site allows.

A site answers with this app, whatever the server's bundle names (`supernode.py`).
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import Context

from fedkd import config
from fedkd.data.readers.pictures.form import PictureForm
from fedkd.data.shared_file import read_own, read_shared, seen_from
from fedkd.data.types import FederatedData, Samples
from fedkd.errors import ConfigError, DataError, MessageError, PolicyError
from fedkd.federation.client import ClientParty, client_app
from fedkd.federation.deploy import keys
from fedkd.federation.deploy.bundle import EXPERIMENT, RUN, SHARED, VERSION, fingerprint, moved
from fedkd.federation.deploy.site import Policy, run_name
from fedkd.federation.disk_state import DiskState
from fedkd.federation.prepare import prepare
from fedkd.federation.secure.identity import Identity
from fedkd.federation.spending import Owner
from fedkd.federation.state import rounds_back
from fedkd.federation.wire import Call
from fedkd.privacy.ledger import Ledger
from fedkd.privacy.size import warn_of_sizes
from fedkd.version import __version__

SITE = "FEDKD_SITE"
"""Environment: the site's file, for who runs the bundle on a plain SuperNode."""


def own_data(policy: Policy, shared: FederatedData) -> Samples:
    """The site's data.

    Raises:
        DataError: it is missing or does not fit what the parties agreed on.
    """
    data = policy.site.data
    return read_own(
        policy.path(data.path),
        policy.format,
        label=data.label,
        shared=shared,
        decimal=data.decimal,
        layout=data.layout,
        range=data.range,
        pictures=PictureForm.of(data, range=data.range, tile=data.tile),
        columns_of_users=data.interactions,
        columns_of_texts=data.text,
    )


def _check_columns(policy: Policy, experiment: config.Experiment) -> None:
    """Refuse a text in place of a pair, or a pair in place of one: both are rows of tokens."""
    asked, own = experiment.data.text, policy.site.data.text or config.TextColumns()
    if asked is None or policy.format == "npz" or len(asked.columns) == len(own.columns):
        return
    raise DataError(
        f"{policy.file.name}: data.text.column is {own.column!r}, and the experiment's texts have "
        f"{len(asked.columns)} column(s), such as {asked.column!r}: name as many"
    )


def _identity(policy: Policy, about: str) -> Identity:
    """What signs the site's keys for secure aggregation, and knows the other sites'."""
    known = keys.registered(policy.path(policy.site.clients))
    if not known:
        raise policy.knows_nobody()
    return Identity(keys.read_own(policy.path(policy.site.key)), known, about.encode())


def ledger(policy: Policy) -> Path:
    """The site's one ledger, for all experiments."""
    return policy.path(policy.site.state) / "ledger.db"


def party(file: Path, context: Context, call: Call) -> ClientParty:
    """The site as the party that a call is for; its file is read anew for each call.

    Raises:
        PolicyError: the site does not allow it.
        FedkdError: the experiment, the site's file or its data will not do.
    """
    policy = Policy.load(file)
    site = policy.site
    theirs = context.run_config.get(VERSION)
    if theirs != __version__:
        raise PolicyError(
            f"the server runs fedkd {theirs} and this site {__version__}: install the same",
            key="version",
        )
    text = str(context.run_config[EXPERIMENT])
    experiment = config.parse_json(text)
    policy.check(text, experiment)
    experiment = config.with_specs(experiment, partial(moved, where=policy.weights))
    clients = experiment.clients.count or 0
    if not (1 <= call.round <= experiment.rounds and 0 <= call.client < clients):
        raise MessageError("the call is for a round or a client that the experiment has not")
    shared = read_shared(policy.path(site.shared), digest=str(context.run_config[SHARED]))
    _check_columns(policy, experiment)
    samples = own_data(policy, shared)
    seen = seen_from(shared, clients, samples={call.client: samples})
    prepared = prepare(experiment, seen, device=site.device)
    if experiment.privacy.unit == "record":
        # Into the site's own log, which stays here.
        warn_of_sizes(experiment.privacy, [len(samples)])
    expected = prepared.on_the_wire(call.client, call.round)
    policy.check_size(sum(spec.nbytes for spec in expected.values()))
    state = policy.path(site.state)
    # By the experiment too: a teacher that one left unprotected is nothing for another to send.
    run = run_name(str(context.run_config[RUN]))
    summed = experiment.privacy.secure_aggregation
    return ClientParty(
        prepared=prepared,
        state=DiskState(
            state / "runs" / f"{run}-{fingerprint(text)[:16]}", back=rounds_back(experiment)
        ),
        ledger=partial(Ledger, ledger(policy)),
        owner=Owner(policy.cap),
        most_bytes=site.limits.bytes,
        identity=_identity(policy, f"{run} {fingerprint(text)}") if summed else None,
    )


@contextmanager
def within(file: Path) -> Iterator[None]:
    """End an answer that takes longer than a site's file allows.

    Where a C library computes on, nothing here can; the executor kills it a little later.
    """
    policy, left = Policy.load(file), 3

    def out_of_time(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise policy.out_of_time()

    before = signal.signal(signal.SIGALRM, out_of_time)
    # Again each second: a library may take the exception for one of its own and go on.
    signal.setitimer(signal.ITIMER_REAL, policy.site.limits.seconds, 1.0)
    try:
        yield
    finally:
        left = 0
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _site() -> Path:
    if SITE not in os.environ:
        raise ConfigError(f"{SITE} is not set: start the site by 'fedkd deploy client SITE.toml'")
    return Path(os.environ[SITE])


app = client_app(lambda context, call: party(_site(), context, call), lambda: within(_site()))
