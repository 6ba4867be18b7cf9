"""Talking to a server that runs: its clients, its runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import httpx

from fedkd.errors import FederationError
from fedkd.federation.compat import control as flower

DONE = "finished:completed"
"""The status of a run that ended well."""


@dataclass(frozen=True)
class Node:
    """A client that the server knows."""

    name: str
    id: int
    public_key: bytes
    online: bool


@dataclass(frozen=True)
class RunStatus:
    """A run as Flower sees it."""

    id: int
    status: str
    """`pending`, `starting`, `running`, or `finished:` with how."""
    started: str
    """ISO 8601; empty until it runs."""

    @property
    def over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.status.startswith("finished")


class Control:
    """A server's Control API, which answers on the server's own machine only.

    Args:
        address: `host:port`.
        ca: the CA's certificate, PEM.

    Every method raises `FederationError` where no server answers, or it refuses.
    """

    def __init__(self, address: str, ca: bytes) -> None:
        self._address = address
        self._client = flower.control_client(address, ca)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def nodes(self) -> list[Node]:
        """The clients that are registered, in alphabetical order."""
        answer = self._call(self._client.ListNodes, flower.ListNodesRequest())
        nodes = [
            Node(info.name, info.node_id, info.public_key, info.status == "online")
            for info in answer.nodes_info
            if info.status != "unregistered"
        ]
        return sorted(nodes, key=lambda node: node.name)

    def register(self, name: str, public_key: bytes) -> None:
        """Let a client in by its key, PEM."""
        request = flower.RegisterNodeRequest(public_key=public_key, name=name)
        self._call(self._client.RegisterNode, request)

    def unregister(self, node: Node) -> None:
        """Let a client in no more."""
        self._call(self._client.UnregisterNode, flower.UnregisterNodeRequest(node_id=node.id))

    def start(self, files: Mapping[str, bytes], overrides: Mapping[str, str]) -> int:
        """Start a run of an app, given as its files; the run's id."""
        answer = self._call(self._client.StartRun, flower.start_request(files, overrides))
        return int(answer.run_id)

    def runs(self) -> list[RunStatus]:
        """All runs, the latest first."""
        answer = self._call(self._client.ListRuns, flower.ListRunsRequest())
        found = [
            RunStatus(
                run.run_id,
                ":".join(filter(None, (run.status.status, run.status.sub_status))),
                run.running_at,
            )
            for run in answer.run_dict.values()
        ]
        return sorted(found, key=lambda run: run.started or "9", reverse=True)

    def run(self, id: int) -> RunStatus:
        """One run."""
        found = [run for run in self.runs() if run.id == id]
        if not found:
            raise FederationError(f"server at {self._address} knows no run {id}")
        return found[0]

    def stop(self, id: int) -> None:
        """Stop a run."""
        self._call(self._client.StopRun, flower.StopRunRequest(run_id=id))

    def _call(self, method: Callable[[Any], Any], request: Any) -> Any:
        try:
            return method(request)
        except httpx.HTTPStatusError as error:
            raise FederationError(
                f"server at {self._address} refused: {error.response.text[:200]}"
            ) from error
        except httpx.HTTPError as error:
            raise FederationError(
                f"no server answers at {self._address} ({error}): start it by 'fedkd deploy server'"
            ) from error
