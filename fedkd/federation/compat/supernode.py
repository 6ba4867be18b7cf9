"""Flower's SuperNode, the process that carries a site's messages."""

import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from fedkd.federation.compat.tasks import says_more
from fedkd.federation.deploy.connecting import Voice
from fedkd.files import write_atomically

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
    logging.getLogger("flwr").addFilter(says_more)
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
