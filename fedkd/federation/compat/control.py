"""Flower's Control API, by which the server's process is asked for runs and nodes."""

import ssl
from collections.abc import Mapping
from hashlib import sha256

import httpx
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient

__all__ = [
    "ControlHttpClient",
    "ListNodesRequest",
    "ListRunsRequest",
    "RegisterNodeRequest",
    "StartRunRequest",
    "StopRunRequest",
    "UnregisterNodeRequest",
    "control_client",
    "start_request",
]


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
