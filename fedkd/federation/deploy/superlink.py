"""The server's process: Flower's SuperLink with TLS, client keys, and a guard before its door.

The SuperLink serves three interfaces on one port: Fleet for clients, Control for whoever runs
experiments, Runtime for the server's own apps. Only Fleet asks for a key; by Control anybody could
run code on this machine. So the guard (`door.py`) lets nothing but Fleet through from another
machine.
"""

import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from fedkd import locks
from fedkd.errors import FederationError, FedkdError, UsageError
from fedkd.federation.compat.superlink import serve_superlink
from fedkd.federation.deploy import keys, processes
from fedkd.federation.deploy.control import Control, Node
from fedkd.federation.deploy.door import Connection, Door
from fedkd.files import write_atomically

READY = "ready"
"""In the state folder once all clients' keys are known."""
STATE = "FEDKD_SERVER_STATE"
"""Environment of the server's own apps: its state folder."""
_WITHIN = 60.0


@dataclass(frozen=True)
class Server:
    """A server that was started: what its state folder says of it."""

    folder: Path
    address: str
    """Where its own machine reaches it, `host:port`."""
    keys: Path
    pid: int
    start: str
    """Another one each time that it is started."""

    @classmethod
    def read(cls, folder: Path) -> "Server":
        """The server of a state folder.

        Raises:
            UsageError: no server was ever started with that folder.
        """
        try:
            about = json.loads((folder / "server.json").read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(
                f"{folder}: no server was started with this state folder; start one by 'fedkd "
                "deploy server --state DIR --keys DIR', or name its folder"
            ) from error
        return cls(**{**about, "folder": folder.resolve(), "keys": Path(about["keys"])})

    def control(self) -> Control:
        """Its Control API."""
        return Control(self.address, (self.keys / keys.CA).read_bytes())

    def stop(self) -> None:
        """End its process, and wait until it has.

        Raises:
            FederationError: it does not end.
        """
        end, signalled = time.monotonic() + _WITHIN, False
        while locks.held(self.folder):
            if time.monotonic() > end:
                raise FederationError(
                    f"the server, process {self.pid}, has not ended after {_WITHIN:.0f} s"
                )
            if not signalled:
                with suppress(ProcessLookupError):  # it has ended meanwhile
                    os.kill(self.pid, signal.SIGTERM)
                signalled = True
            time.sleep(0.2)


def serve(folder: Path, key_folder: Path, *, host: str, port: int) -> None:
    """Run the server until it is told to stop.

    Whoever's public key is in `key_folder` when it starts is let in, and nobody else.

    Args:
        folder: its state: the database, the ledger, what clients' ledgers last said.
        key_folder: what `keys.make` made.
        host: the address to listen on; `0.0.0.0` for all of this machine's.
        port: the port to listen on.

    Raises:
        UsageError: keys are missing, the port is taken, or the folder has a server already.
    """
    for name in (keys.CA, keys.SERVER, keys.SERVER_KEY):
        if not (key_folder / name).exists():
            raise UsageError(
                f"{key_folder / name} is missing: make keys by 'fedkd deploy keys {key_folder} "
                "--server HOST --client NAME'"
            )
    clients = keys.public_keys(key_folder)
    if not clients:
        raise UsageError(f"{key_folder / keys.CLIENTS}: holds no client's public key, NAME.pub")
    processes.private_folder(folder)
    lock = locks.hold(folder, "a server")
    processes.quiet_flower(folder)
    own_host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    if own_host not in keys.server_names(key_folder):
        raise UsageError(
            f"{key_folder / keys.SERVER} does not name {own_host}, where this server would listen: "
            f"move it and its key away and run 'fedkd deploy keys {key_folder} --server "
            f"{own_host}' and its other names, or take another --host"
        )
    _require_free(host, port)
    address = f"[{own_host}]:{port}" if ":" in own_host else f"{own_host}:{port}"
    server = Server(
        folder=folder.resolve(),
        address=address,
        keys=key_folder.resolve(),
        pid=os.getpid(),
        start=secrets.token_hex(8),
    )
    about = {**asdict(server), "folder": str(server.folder), "keys": str(server.keys)}
    write_atomically(folder / "server.json", json.dumps(about))
    os.environ["FORWARDED_ALLOW_IPS"] = ""  # a caller's address is not for the caller to say
    os.environ[STATE] = str(server.folder)
    (folder / READY).unlink(missing_ok=True)
    threading.Thread(target=_register, args=(server, clients), daemon=True).start()
    arguments = [
        *("--ssl-ca-certfile", str(server.keys / keys.CA)),
        *("--ssl-certfile", str(server.keys / keys.SERVER)),
        *("--ssl-keyfile", str(server.keys / keys.SERVER_KEY)),
        *("--database", str(server.folder / "flower.db")),
        *("--host", host, "--port", str(port)),
        "--enable-supernode-auth",
        "--disable-runtime-dependency-installation",
    ]
    try:
        serve_superlink(arguments, partial(Door, keys=clients.values()), Connection)
    finally:
        lock.release()


def _register(server: Server, clients: dict[str, bytes]) -> None:
    """Let in whoever's key is in the folder and nobody else, once the server answers."""
    try:
        with server.control() as control:
            nodes = _first_answer(control)
            if not (Door.seen and Connection.seen):
                raise FederationError(
                    "the guard before Flower's interfaces is not in place: this version of flwr is "
                    "not one that fedkd knows, install by the constraints file"
                )
            for node in nodes:
                if clients.get(node.name) != node.public_key:
                    control.unregister(node)
            known = {(node.name, node.public_key) for node in nodes}
            for name, key in clients.items():
                if (name, key) not in known:
                    control.register(name, key)
        write_atomically(server.folder / READY, str(server.pid))
    except (FedkdError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        os.kill(os.getpid(), signal.SIGTERM)


def _first_answer(control: Control) -> list[Node]:
    end = time.monotonic() + _WITHIN
    while True:
        try:
            return control.nodes()
        except FederationError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def _require_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UsageError(
                f"port {port} on {host}: {error.strerror}; name another with --port or --host"
            ) from error
