"""Flower's private names, all in one place, for flwr >= 1.41, < 1.43."""

import asyncio
import logging
import ssl
import sys
import time
from base64 import b64decode
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.serverapp import ServerApp
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedkd.federation.deploy.connecting import Voice
from fedkd.files import write_atomically

SERVER_NODE = 1
"""The node id that Flower gives the server."""
BUSY, CRASHED = ErrorCode.NODE_UNAVAILABLE, ErrorCode.CLIENT_APP_CRASHED
ERRORS = {
    ErrorCode.LOAD_CLIENT_APP_EXCEPTION: "its app could not be loaded",
    ErrorCode.CLIENT_APP_RAISED_EXCEPTION: "its app raised an exception",
    ErrorCode.MESSAGE_UNAVAILABLE: "the call was lost",
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE: "the answer was lost",
    ErrorCode.NODE_UNAVAILABLE: "its node was not available",
    ErrorCode.CLIENT_APP_CRASHED: "its app crashed",
}
"""Flower's error codes in words."""

__all__ = [
    "SERVER_NODE",
    "ControlHttpClient",
    "ListNodesRequest",
    "ListRunsRequest",
    "RegisterNodeRequest",
    "Run",
    "StartRunRequest",
    "StopRunRequest",
    "UnregisterNodeRequest",
    "control_client",
    "execute_tasks",
    "identify_server",
    "new_context",
    "number",
    "ray_simulation",
    "run_client_task",
    "serve_superlink",
    "serve_supernode",
    "signed_by",
    "start_request",
]


def identify_server(run_id: int) -> None:
    """Let this process create messages as the server of a run, as a SuperLink would."""
    TaskIdentity.task_id = 1
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = SERVER_NODE


def number(message: Message, identity: int) -> None:
    """Give a message its id, as a SuperLink would."""
    message.metadata.__dict__["_message_id"] = str(identity)


def new_context(run_id: int, node_id: int, node_config: Mapping[str, Any]) -> Context:
    """The context that a node's app is called with."""
    return Context(
        run_id=run_id,
        node_id=node_id,
        node_config=dict(node_config),
        state=RecordDict(),
        run_config={},
    )


def ray_simulation(server: ServerApp, client: ClientApp, *, nodes: int, cores: int) -> None:
    """Flower's own simulation on Ray, `cores` clients at a time."""
    from flwr.simulation.run_simulation import _run_simulation
    from flwr.supercore.telemetry import EventType

    _run_simulation(
        num_supernodes=nodes,
        exit_event=EventType.PYTHON_API_RUN_SIMULATION_LEAVE,
        server_app=server,
        client_app=client,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": cores, "logging_level": "ERROR", "log_to_driver": False},
        },
    )


def serve_superlink(
    arguments: Sequence[str], guard: Callable[..., Any], connection: type[asyncio.Protocol]
) -> None:
    """Run Flower's SuperLink in this process until it is told to stop.

    Args:
        arguments: of `flower-superlink`.
        guard: makes an ASGI middleware, put before everything that the SuperLink serves.
        connection: uvicorn's protocol for a connection.
    """
    import uvicorn
    from flwr.superlink import main

    command = import_module("flwr.superlink.cli.flower_superlink")
    make = main.create_app

    class Guarded:
        """Of Flower's `uvicorn`: it serves without a limit of any kind."""

        run = staticmethod(partial(uvicorn.run, http=connection, ws="none"))

    def guarded(*args: Any) -> Any:
        app = make(*args)
        app.add_middleware(guard)
        return app

    main.create_app = guarded  # type: ignore[assignment]
    command.uvicorn = Guarded  # type: ignore[attr-defined]
    sys.argv = ["flower-superlink", *arguments]
    command.flower_superlink()


def signed_by(keys: Collection[bytes], headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether one of these public keys, PEM, signed a request to Fleet, by its headers.

    A stranger's key is not even parsed, so that whoever has none cannot keep the server busy. How
    old the signature is, and whose request it is, Flower looks at once it has read it.
    """
    from flwr.common.constant import TIMESTAMP_HEADER
    from flwr.supercore import constant
    from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature

    sent = dict(headers)
    names = (constant.FLEET_HTTP_PUBLIC_KEY_HEADER, constant.FLEET_HTTP_SIGNATURE_HEADER)
    try:
        key, signature = (b64decode(sent[name.lower().encode()], validate=True) for name in names)
        signed = sent[TIMESTAMP_HEADER.lower().encode()]
        return key in keys and verify_signature(bytes_to_public_key(key), signed, signature)
    except (KeyError, ValueError, TypeError, AttributeError, UnsupportedAlgorithm):
        return False


_LOOK = 0.5
"""Seconds between two looks of a node for messages."""


def serve_supernode(arguments: Sequence[str], memory: Path, voice: Voice) -> None:
    """Run Flower's SuperNode in this process until it is told to stop.

    A node that was killed and comes back is refused for a minute, until the SuperLink has missed
    it. It has its own key, so it says itself that it was gone.

    Args:
        arguments: of `flower-supernode`.
        memory: a file that keeps the node's id.
        voice: says why calls fail.
    """
    from flwr.proto.fleet_pb2 import DeactivateNodeRequest
    from flwr.supernode import fleet_http_connection as connection
    from flwr.supernode import start_client_internal as internal
    from flwr.supernode.cli.flower_supernode import flower_supernode
    from flwr.supernode.fleet_http_client import FleetHttpClient

    class Returning(FleetHttpClient):
        def _unary_unary(self, **call: Any) -> Any:
            with voice:
                return super()._unary_unary(**call)

        def ActivateNode(self, request: Any) -> Any:  # noqa: N802 - Flower's name
            try:
                answer = super().ActivateNode(request)
            except httpx.HTTPStatusError as error:
                before = _remembered(memory)
                if error.response.status_code != httpx.codes.CONFLICT or before is None:
                    voice.say(error)
                    raise
                self.DeactivateNode(DeactivateNodeRequest(node_id=before))
                answer = super().ActivateNode(request)
            write_atomically(memory, str(answer.node_id))
            return answer

        def PushMessages(self, request: Any) -> Any:  # noqa: N802 - Flower's name
            # How long an answer took tells how much data there is.
            request.clientapp_runtime_list[:] = [0.0] * len(request.clientapp_runtime_list)
            return super().PushMessages(request)

    class Eager:
        """Of Flower's `time`: it looks for messages each 3 s, which is most of an idle round."""

        @staticmethod
        def sleep(seconds: float) -> None:
            time.sleep(min(seconds, _LOOK))

    connection.FleetHttpClient = Returning  # type: ignore
    internal.time = Eager  # type: ignore
    logging.getLogger("flwr").addFilter(_says_more)
    _always_answers()
    sys.argv = ["flower-supernode", *arguments]
    flower_supernode()


def _remembered(memory: Path) -> int | None:
    """The id that a node had, if it had any; what cannot be read is none."""
    try:
        node = int(memory.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return node if 0 <= node < 2**64 else None


def _says_more(record: logging.LogRecord) -> bool:
    """Whether Flower's line says more than that it tries again, which it says without end."""
    return not str(record.msg).startswith("Connection attempt failed")


def _always_answers() -> None:
    """Have a SuperNode answer each message it took in, if only by an error.

    As it is it waits for an answer without end, and takes in no other message meanwhile, where a
    task is of a kind that nobody here runs, or failed before it had read its message.
    """
    from flwr.supercore.constant import TaskType
    from flwr.supernode.nodestate import in_memory_nodestate, nodestate_factory

    class State(in_memory_nodestate.InMemoryNodeState):
        def create_task(self, task_type: str, run_id: int, *args: Any, **more: Any) -> int | None:
            del task_type
            return super().create_task(TaskType.CLIENT_APP, run_id, *args, **more)

        def finish_task(self, task_id: int, sub_status: str, details: str) -> bool:
            run_id = self.task_store[task_id].run_id if task_id in self.task_store else None
            finished = super().finish_task(task_id, sub_status, details)
            if finished and run_id is not None and sub_status != "completed":
                for id, entry in list(self.msg_store.items()):
                    if not entry.message.metadata.reply_to_message_id and not entry.is_retrieved:
                        entry.is_retrieved = True
                        self.record_message_processing_start(id)
                crashed = in_memory_nodestate.CLIENT_APP_CRASHED_ERROR
                self._store_error_replies({run_id}, crashed)
            return finished

    nodestate_factory.InMemoryNodeState = State  # type: ignore


def execute_tasks(
    start: Callable[[str], None],
    look: Callable[[], None],
    *,
    address: str,
    secret: bytes,
    parent: int,
) -> None:
    """Start a process for each message that a SuperNode has taken in, until `parent` is gone.

    Args:
        start: is called with the token of a task; nothing but a client's tasks come to it.
        look: is called again and again, some times a second.
        address: where the SuperNode's Runtime API listens.
        secret: known to the SuperNode and this process alone.
        parent: the SuperNode's process id.
    """
    from flwr.supercore.constant import TaskType
    from flwr.supercore.superexec import run_superexec as superexec
    from flwr.supercore.superexec.executor import ExecutionSpec, LaunchResult
    from flwr.supercore.superexec.executor.subprocess_executor import SubprocessExecutor

    class Executor(SubprocessExecutor):
        def launch(self, spec: ExecutionSpec) -> LaunchResult:
            start(spec.token)
            return LaunchResult.accepted()

        def reconcile(self) -> None:
            look()

    logging.getLogger("flwr").addFilter(_says_more)
    superexec.get_executor = lambda *_, **__: Executor()  # type: ignore[attr-defined]
    superexec.AutoExecPlugin.supported_task_types = (  # type: ignore[attr-defined]
        frozenset({TaskType.CLIENT_APP})
    )
    superexec.run_superexec(
        runtime_api_address=address,
        insecure=True,
        superexec_auth_secret=secret,
        parent_pid=parent,
        runtime_dependency_install=False,
    )


def run_client_task(
    app: Callable[[Message, Context], Message], *, address: str, token: str, parent: int
) -> None:
    """Answer one message by `app`, whatever app the server named; then end this process.

    Of the bundle that the server sent nothing is unpacked, read or run.
    """
    from flwr.supernode.runtime import run_clientapp as runtime

    def answer(message: Message, context: Context) -> Message:
        try:
            return app(message, context)
        except SystemExit:  # it would end this process without an answer
            return Message(Error(CRASHED, "exit"), reply_to=message)

    runtime.install_from_fab = lambda *_, **__: None  # type: ignore
    runtime.get_load_client_app_fn = lambda **_: lambda *_: answer  # type: ignore
    runtime.run_clientapp(
        runtime_api_address=address,
        token=token,
        insecure=True,
        parent_pid=parent,
        runtime_dependency_install=False,
    )


def control_client(address: str, ca: bytes) -> ControlHttpClient:
    """A client of a SuperLink's Control API."""
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

    client = ControlHttpClient.from_server_address(
        server_address=address,
        insecure=False,
        root_certificates=ca,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
    )
    # It is on this machine, where the environment's proxy has no business.
    trusting = ssl.create_default_context(cadata=ca.decode("ascii"))
    client._client.close()
    client._client = httpx.Client(verify=trusting, timeout=30.0, trust_env=False)
    return client


def start_request(files: Mapping[str, bytes], overrides: Mapping[str, str]) -> StartRunRequest:
    """The request to run an app, given as its files."""
    from flwr.cli.build import build_fab_from_files
    from flwr.common.serde import fab_to_proto, user_config_to_proto
    from flwr.supercore.fab import Fab

    content, _ = build_fab_from_files(files)
    return StartRunRequest(
        fab=fab_to_proto(Fab(sha256(content).hexdigest(), content, {})),
        override_config=user_config_to_proto(dict(overrides)),
    )
