"""What the server's door lets through, how much of it, and how long it waits for the rest."""

import asyncio
import socket
import threading
from base64 import b64encode
from contextlib import contextmanager, suppress
from functools import partial

import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives import asymmetric
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message

from fedkd.federation.deploy.door import Connection, Door, RequestLimits

FLEET = "/v1/fleet/push-object"
OTHER_MACHINE = "127.0.0.2"
"""As good as another machine to a server at 127.0.0.1."""
KEY = ec.generate_private_key(ec.SECP384R1())
PUBLIC = public_key_to_bytes(KEY.public_key())
PATIENT = 60.0
"""Seconds that a test waits for what must come; far more than it takes."""
TIGHT = {
    "keys": [PUBLIC],
    "strangers": RequestLimits(bytes=1_000, seconds=PATIENT),
    "clients": RequestLimits(bytes=100_000, seconds=PATIENT),
}


def asked(path, client, server="10.0.0.1"):
    """The status that a request gets, and whether the SuperLink saw it."""
    seen, sent = [], []

    async def app(scope, receive, send):
        seen.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": path, "client": client, "server": (server, 9400)}
    asyncio.run(Door(app)({**scope, "headers": []}, receive, send))
    return sent[0]["status"], bool(seen)


@pytest.mark.parametrize(
    "path", ["/v1/control/start-run", "/v1/runtime/acquire-task", "/docs", "/"]
)
def test_from_another_machine_nothing_but_clients_messages_comes_through(path):
    assert asked(path, ("192.0.2.1", 5)) == (403, False)
    assert asked(path, None) == (403, False)
    assert asked(path, ("127.0.0.1", 5)) == (200, True)
    assert asked(path, ("::1", 5)) == (200, True)
    assert asked(path, ("10.0.0.1", 5)) == (200, True)  # its own address


def test_a_client_is_let_through_from_anywhere():
    assert asked("/v1/fleet/pull-messages", ("192.0.2.1", 5)) == (200, True)
    assert asked("/health", ("192.0.2.1", 5)) == (200, True)
    assert asked("/v1/fleet/../control/start-run", ("192.0.2.1", 5)) == (403, False)
    assert asked("/v1/control/../fleet/x", ("192.0.2.1", 5)) == (403, False)


class Behind:
    """What stands behind the door: it remembers the bodies that came through."""

    def __init__(self):
        self.bodies = []

    async def __call__(self, scope, receive, send):
        message = await receive()
        self.bodies.append(message["body"])
        assert not message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@contextmanager
def served(behind, connection=Connection, **limits):
    """A server with this door on loopback; its port."""
    door = partial(Door, **{**TIGHT, **limits})(behind)
    config = uvicorn.Config(
        door, host="127.0.0.1", port=0, http=connection, ws="none", lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=partial(server.run, sockets=[listening]))
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(PATIENT)
            assert not thread.is_alive()


@contextmanager
def calling(port, content, source=OTHER_MACHINE):
    """A connection on which something was sent."""
    with socket.create_connection(("127.0.0.1", port), PATIENT, (source, 0)) as call:
        call.sendall(content)
        yield call


def request(length, body=b"", key=None, more=(), path=FLEET):
    """A POST to Fleet that says how long its body is, and a part of it."""
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {length}", *more]
    if length is None:
        lines[2] = "transfer-encoding: chunked"
    if key is not None:
        when = "2026-11-28T17:00:00+00:00"
        signature = b64encode(sign_message(key, when.encode())).decode()
        lines += [
            f"{FLEET_HTTP_PUBLIC_KEY_HEADER}: {b64encode(PUBLIC).decode()}",
            f"flwr-timestamp: {when}",
            f"{FLEET_HTTP_SIGNATURE_HEADER}: {signature}",
        ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def answer(call):
    """All that the server says until it closes the connection, in whatever way."""
    said = b""
    with suppress(ConnectionResetError):  # what it had been sent was not all read
        while piece := call.recv(65536):
            said += piece
    return said


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent():
    behind = Behind()
    with served(behind) as port, calling(port, request(300_000_000)) as call:
        said = answer(call)
    assert said.startswith(b"HTTP/1.1 413 ")
    assert said.endswith(b"more than 1000 bytes")
    assert behind.bodies == []


def test_a_body_that_does_not_say_how_large_it_is_is_refused_where_it_is_too_large():
    behind = Behind()
    with served(behind) as port, calling(port, request(None)) as call:
        call.sendall(b"258\r\n" + bytes(600) + b"\r\n")
        call.sendall(b"258\r\n" + bytes(600) + b"\r\n")
        assert answer(call).startswith(b"HTTP/1.1 413 ")
    assert behind.bodies == []


@pytest.mark.parametrize(
    ("size", "key", "status"),
    [
        (1_000, None, b"200"),
        (1_001, None, b"413"),
        (100_000, KEY, b"200"),
        (100_001, KEY, b"413"),
        (1_001, ec.generate_private_key(ec.SECP384R1()), b"413"),  # another's key, named alone
    ],
)
def test_more_comes_in_from_who_shows_a_clients_key(size, key, status):
    behind = Behind()
    content = request(size, bytes(size), key, more=["connection: close"])
    with served(behind) as port, calling(port, content) as call:
        assert call.recv(12) == b"HTTP/1.1 " + status
    assert behind.bodies == ([bytes(size)] if status == b"200" else [])


def test_a_strangers_signature_costs_no_look_at_its_key(monkeypatch):
    parsed = []
    monkeypatch.setattr(asymmetric, "bytes_to_public_key", parsed.append)
    monkeypatch.setattr(asymmetric, "verify_signature", lambda *_: True)
    for known, key in (([], KEY), ([PUBLIC], None), ([PUBLIC], KEY)):
        content = request(2, b"ok", key)
        with served(Behind(), keys=known) as port, calling(port, content) as call:
            assert call.recv(12) == b"HTTP/1.1 200"
    assert parsed == [PUBLIC]


@pytest.mark.parametrize(("key", "status"), [(KEY, b"409"), (None, b"412")])
def test_a_known_key_that_flower_does_not_activate_is_connected_already(key, status):
    async def no(scope, receive, send):
        await send({"type": "http.response.start", "status": 412, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    content = request(2, b"ok", key, path="/v1/fleet/activate-node")
    with served(no) as port:
        with calling(port, content) as call:
            assert call.recv(12) == b"HTTP/1.1 " + status
        with calling(port, request(2, b"ok", key)) as call:
            assert call.recv(12) == b"HTTP/1.1 412"


def test_half_a_body_is_waited_for_no_longer_than_a_while():
    behind, soon = Behind(), RequestLimits(bytes=1_000, seconds=0.2)
    with served(behind, strangers=soon) as port:
        with calling(port, request(100, b"half")) as one, calling(port, request(100)) as other:
            for call in (one, other):
                said = answer(call)
                assert said.startswith(b"HTTP/1.1 408 ")
                assert said.endswith(b"not there after 0.2 s")
        with calling(port, request(4, b"full", more=["connection: close"])) as whole:
            assert answer(whole).startswith(b"HTTP/1.1 200 ")
    assert behind.bodies == [b"full"]


def test_a_body_that_is_cut_off_never_comes_through():
    behind = Behind()
    with served(behind) as port:
        with calling(port, request(100, b"half")) as call:
            call.shutdown(socket.SHUT_WR)
            assert answer(call) == b""
        with calling(port, request(4, b"full")) as whole:
            assert whole.recv(12) == b"HTTP/1.1 200"
    assert behind.bodies == [b"full"]


class Hasty(Connection):
    patience = 0.2


@pytest.mark.parametrize("begun", [b"", b"POST /v1/fleet/x HTTP/1.1\r\nhost: x\r\n"])
def test_half_a_head_is_waited_for_no_longer_than_a_while(begun):
    behind = Behind()
    with served(behind, Hasty) as port, calling(port, begun) as call:
        assert answer(call) == b""
        with calling(port, request(2, b"ok")) as later:
            assert later.recv(12) == b"HTTP/1.1 200"
            later.sendall(begun)
            assert answer(later).endswith(b"\r\n\r\n0\r\n\r\n")  # of the first, and no more
    assert behind.bodies == [b"ok"]


def test_a_request_that_takes_its_time_is_no_idle_connection():
    going = threading.Event()

    class Slow(Behind):
        async def __call__(self, scope, receive, send):
            await asyncio.sleep(3 * Hasty.patience)
            going.set()
            await super().__call__(scope, receive, send)

    with served(Slow(), Hasty) as port, calling(port, request(2, b"ok")) as call:
        assert call.recv(12) == b"HTTP/1.1 200"
        assert going.is_set()


class Narrow(Connection):
    most = 3


def test_no_more_connections_than_a_limit_and_this_machines_own_always():
    behind = Behind()
    with served(behind, Narrow) as port, socket.socket() as extra:
        held = [
            socket.create_connection(("127.0.0.1", port), PATIENT, (source, 0))
            for source in ["127.0.0.1"] * 4 + [OTHER_MACHINE] * 3  # its own take nobody's place
        ]
        try:
            for call in held:  # each has been let in
                call.sendall(request(2, b"ok"))
                assert call.recv(12) == b"HTTP/1.1 200"
            extra.settimeout(PATIENT)
            extra.bind((OTHER_MACHINE, 0))
            extra.connect(("127.0.0.1", port))
            assert answer(extra) == b""
            with calling(port, request(2, b"ok"), source="127.0.0.1") as own:
                assert own.recv(12) == b"HTTP/1.1 200"
        finally:
            for call in held:
                call.close()
    assert behind.bodies == [b"ok"] * 8
