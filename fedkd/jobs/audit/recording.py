"""What an honest-but-curious server keeps: every message that it let in, on disk.

A method's server part is what receives the uploads, so a method that writes them down and then does
its own work is all that recording takes; nothing of the round loop changes.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from fedkd.errors import UsageError
from fedkd.exchange.codec import Expected, decode, encode
from fedkd.exchange.coding.fields import AnswerField
from fedkd.exchange.messages import Broadcast, Tensors, Upload
from fedkd.files import write_atomically
from fedkd.methods.core.base import ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.methods.core.votes import Voting
from fedkd.rows import Rows

Messages = Mapping[int, Mapping[int, Tensors]]
"""Uploads by round, then by client."""
MESSAGES = Path("audit") / "messages"
"""Where they are, in the run's folder."""


class RecordingMethod(Method):
    """A method, and a folder into which its server part's messages go."""

    def __init__(self, method: Method, folder: Path) -> None:
        super().__init__(method.params)
        self.card = method.card  # type: ignore[misc]  # the method's own
        self._method = method
        self._folder = folder
        self._compared = 0
        """The last round in which all that came was written down before some were left out."""

    def check(self, setting: Setting) -> None:
        """See `Method`."""
        self._method.check(setting)

    def expects(self, setting: Setting, client: int) -> Expected:
        """See `Method`."""
        return self._method.expects(setting, client)

    def voting(self, setting: Setting) -> Voting | None:
        """See `Method`."""
        return self._method.voting(setting)

    def answers(self, setting: Setting) -> Mapping[str, AnswerField]:
        """See `Method`."""
        return self._method.answers(setting)

    def probe(self, setting: Setting, client: int, upload: Tensors, x: Rows) -> Tensor | None:
        """See `Method`."""
        return self._method.probe(setting, client, upload, x)

    def said(
        self, ctx: ServerContext, uploads: Uploads, inputs: Callable[[], Rows]
    ) -> Tensor | None:
        """See `Method`; all uploads are written down, also those that will not be heard."""
        self._write(ctx.round, uploads)
        self._compared = ctx.round
        return self._method.said(ctx, uploads, inputs)

    def begin(self, ctx: ServerContext) -> Broadcast:
        """See `Method`."""
        return self._method.begin(ctx)

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        """See `Method`."""
        return self._method.client(ctx, broadcast)

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        """See `Method`; the uploads are written down first."""
        if self._compared != ctx.round:
            self._write(ctx.round, uploads)
        return self._method.server(ctx, uploads)

    def _write(self, round: int, uploads: Uploads) -> None:
        folder = self._folder / f"round-{round:06d}"
        folder.mkdir(parents=True, exist_ok=True)
        for client, upload in uploads.items():
            write_atomically(folder / f"client-{client:04d}.safetensors", encode(upload))


def read_messages(folder: Path) -> Messages:
    """What the server of a run let in, by round, then by client.

    Raises:
        UsageError: it recorded nothing.
    """
    rounds: dict[int, dict[int, dict[str, Tensor]]] = {}
    for place in sorted((folder / MESSAGES).glob("round-*")):
        rounds[int(place.name.removeprefix("round-"))] = {
            int(file.stem.removeprefix("client-")): decode(file.read_bytes())
            for file in sorted(place.glob("client-*.safetensors"))
        }
    if not any(rounds.values()):
        raise nothing_recorded(folder)
    return rounds


def nothing_recorded(folder: Path) -> UsageError:
    """What to say of a run whose server kept nothing."""
    return UsageError(
        f"run folder {str(folder)!r} holds no recorded messages: audit its config.toml with 'fedkd "
        "audit exchange', which runs it again and records them"
    )
