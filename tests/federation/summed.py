"""The closed form whose plain parts and sums a test may look at, and a wire that loses answers."""

from flwr.app import Error, Message

from fedkd.federation import wire
from fedkd.methods.analytic import Analytic

SENT: dict[int, list[dict]] = {}
"""By client, what it computed in each attempt, before it was masked."""
GIVEN: list[dict] = []
"""What the server part was given, in each round."""


class Seen(Analytic):
    def client(self, ctx, broadcast):
        upload = super().client(ctx, broadcast)
        plain = {name: value.data.clone() for name, value in upload.values.items()}
        SENT.setdefault(ctx.client, []).append(plain)
        return upload

    def server(self, ctx, uploads):
        GIVEN.append({client: dict(upload) for client, upload in uploads.items()})
        return super().server(ctx, uploads)


class Wire:
    """An app whose replies are kept as they cross the wire, and lost where a test says so."""

    def __init__(self, app, *, lost=(), changed=None):
        self.app, self.lost, self.changed = app, set(lost), changed
        self.replies = []

    def __call__(self, message, context):
        call = wire.unpack(message.content)
        action = message.metadata.message_type.removeprefix("train.")
        reply = self.app(message, context)
        self.replies.append((action, call.client, wire.unpack(reply.content)))
        if (action, call.client) in self.lost:
            return Message(Error(1, "lost"), reply_to=message)
        return self.changed(action, message, reply) if self.changed else reply
