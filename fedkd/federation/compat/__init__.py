"""Flower's private names, all in this package, for flwr >= 1.41, < 1.43.

Here is what every run needs; a deployment's parts are in modules of their own, since each of them
loads much of Flower.
"""

import os
from collections.abc import Mapping
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

__all__ = [
    "BUSY",
    "CRASHED",
    "ERRORS",
    "SERVER_NODE",
    "Run",
    "identify_server",
    "new_context",
    "number",
    "ray_simulation",
]

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
    """Flower's own simulation on Ray, `cores` clients at a time.

    Where the environment names a cluster (`RAY_ADDRESS`) that runs them, as many as it has CPUs.
    """
    from flwr.simulation.run_simulation import _run_simulation
    from flwr.supercore.telemetry import EventType

    _run_simulation(
        num_supernodes=nodes,
        exit_event=EventType.PYTHON_API_RUN_SIMULATION_LEAVE,
        server_app=server,
        client_app=client,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {
                # Ray refuses a number of CPUs for a cluster, which has its own.
                **({} if os.environ.get("RAY_ADDRESS") else {"num_cpus": cores}),
                "logging_level": "ERROR",
                "log_to_driver": False,
            },
        },
    )
