"""How Flower runs a site's tasks: one process for each message."""

import logging
from collections.abc import Callable

from flwr.app import Context, Error, Message

from fedkd.federation.compat import CRASHED

ANSWERING = "flwr.supernode.runtime.run_clientapp"
"""The module of Flower that answers a message, which takes most of a second to import."""


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

    logging.getLogger("flwr").addFilter(says_more)
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


def says_more(record: logging.LogRecord) -> bool:
    """Whether Flower's line says more than that it tries again, which it says without end."""
    return not str(record.msg).startswith("Connection attempt failed")
