"""The server's door: which requests come through, how large they may be, how long they may take.

Flower reads a request whole and parses it before it asks who sent it, and waits without end for
one that does not come. So all of that is decided here, before Flower sees anything.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from fedkd.federation.compat.superlink import signed_by

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]

_OPEN = ("/v1/fleet/", "/health")
_ACTIVATE, _REFUSED = "/v1/fleet/activate-node", 412


@dataclass(frozen=True)
class RequestLimits:
    """What one request may be."""

    bytes: int
    """Of its body."""
    seconds: float
    """Until its body is there."""


STRANGERS = RequestLimits(bytes=64_000, seconds=10.0)
"""Of who has not shown a client's key: enough for Flower to refuse it in words."""
CLIENTS = RequestLimits(bytes=16_000_000, seconds=600.0)
"""Of a client: Flower cuts what it sends into pieces of 5 MiB."""


class Door:
    """ASGI middleware: from another machine nothing but Fleet and the health check answers."""

    seen = False
    """Whether any request has come by: a server without its guard must not run."""

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        *,
        keys: Collection[bytes] = (),
        strangers: RequestLimits = STRANGERS,
        clients: RequestLimits = CLIENTS,
    ) -> None:
        self._app, self._keys = app, frozenset(keys)
        self._strangers, self._clients = strangers, clients

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, or refuse: status 403, 408 for half a request, 413 for one that is too large."""
        Door.seen = True
        path = scope.get("path", "")
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif path.startswith(_OPEN) and ".." not in path:
            await self._read_first(scope, receive, send)
        elif _is_local(scope):
            await self._app(scope, receive, send)
        else:
            await _refuse(send, 403, "only from the server's own machine")

    async def _read_first(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on a request whose body is there, whole and not too large."""
        known = signed_by(self._keys, scope["headers"])
        limits = self._clients if known else self._strangers
        try:
            async with asyncio.timeout(limits.seconds):
                body = await _body(scope, receive, limits.bytes)
        except TimeoutError:
            await _refuse(send, 408, f"not there after {limits.seconds:g} s")
            return
        except ConnectionResetError:  # half a request is none
            return
        if body is None:
            await _refuse(send, 413, f"more than {limits.bytes} bytes")
            return
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Scope:
            return waiting.pop() if waiting else await receive()

        async def answer(message: Scope) -> None:
            # Flower has one word for an unknown key and for one that is connected already. Who
            # shows a known one may be told.
            if known and scope["path"] == _ACTIVATE and message.get("status") == _REFUSED:
                message["status"] = 409
            await send(message)

        del body
        await self._app(scope, replay, answer)


async def _body(scope: Scope, receive: Receive, most: int) -> bytes | None:
    """The body of a request; None where it is larger than `most` or says that it will be.

    Raises:
        ConnectionResetError: the caller went away before all was there.
    """
    declared = dict(scope["headers"]).get(b"content-length", b"0")
    if int(declared) > most:
        return None
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        body += message.get("body", b"")
        if len(body) > most:
            return None
        more = message.get("more_body", False)
    return bytes(body)


async def _refuse(send: Send, status: int, why: str) -> None:
    body = why.encode()
    length = (b"content-length", str(len(body)).encode())
    headers = [length, (b"connection", b"close")]  # what is still to come is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _is_local(scope: Scope) -> bool:
    return _is_own(scope.get("client"), scope.get("server"))


def _is_own(client: tuple[str, Any] | None, server: tuple[str, Any] | None) -> bool:
    """Whether a caller is on this machine."""
    caller = (client or ("",))[0]
    # A machine that calls itself by one of its own addresses calls from that address.
    return caller in ("127.0.0.1", "::1") or caller == (server or (None,))[0]


class Connection(H11Protocol):
    """A connection that is closed where it is one too many, or no whole request's head comes.

    h11 refuses a head of more than 64 KiB.
    """

    patience = 10.0
    """Seconds for the next request to begin and its head to be there."""
    most = 256
    """Other machines' connections at a time; this machine's own come on top."""
    seen = False
    """Whether any connection was made."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Close it, or look after it."""
        Connection.seen = True
        super().connection_made(transport)
        foreign = [each for each in self.connections if not _is_own(each.client, each.server)]
        if self in foreign and len(foreign) > self.most:
            transport.abort()
            return
        self.loop.call_later(self.patience, self._look, None)

    def _look(self, before: object) -> None:
        """End a connection on which nothing has begun since the last look."""
        if self.transport.is_closing():
            return
        busy = self.cycle is not None and not self.cycle.response_complete
        if self.cycle is before and not busy:
            self.transport.abort()
            return
        self.loop.call_later(self.patience, self._look, self.cycle)
