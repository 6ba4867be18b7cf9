"""A site whose server cannot be reached says why, once, and what to do."""

import os
import socket
import ssl
import threading
from contextlib import contextmanager

import httpx
import processes
import pytest
import tiny
from processes import PATIENCE, wait_until

from fedkd.federation.deploy import keys
from fedkd.federation.deploy.connecting import Voice, explain, proxy
from fedkd.federation.deploy.processes import call_own_directly, free_port
from fedkd.jobs.local import lay_out


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    """As if no environment had named any."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Keys of a federation whose server is named 127.0.0.1."""
    folder = tmp_path_factory.mktemp("keys")
    keys.make(folder, servers=["127.0.0.1"], clients=["a"])
    return folder


@contextmanager
def listening(answer, host="127.0.0.1"):
    """Somebody on loopback who does `answer` to each connection; the port."""

    def serve():
        while True:
            try:
                call, _ = server.accept()
            except OSError:  # it is over
                return
            with call:
                try:
                    answer(call)
                except OSError:  # the caller went away
                    continue

    with socket.create_server((host, 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def said(address, verify=True, timeout=30.0):
    """The explanation of a call to a site's server."""
    with (
        httpx.Client(verify=verify, timeout=timeout) as client,
        pytest.raises(httpx.HTTPError) as caught,
    ):
        client.get(f"https://{address}/health").raise_for_status()
    return explain(caught.value, address)


def test_a_name_that_is_not_known(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert said("fed.exmaple.org:9400") == (
        "server fed.exmaple.org:9400: its name is not known here (Name or service not known); is "
        "server = 'fed.exmaple.org:9400' right, does it run, is its port open to this site?"
    )


def test_a_port_where_nobody_listens_and_one_where_nobody_answers():
    port = free_port()
    assert said(f"127.0.0.1:{port}").startswith(
        f"server 127.0.0.1:{port}: it refuses the connection, nothing listens there; is server = "
    )
    over = threading.Event()
    with listening(lambda _: over.wait(60)) as port:
        assert "no answer in time; is server = " in said(f"127.0.0.1:{port}", timeout=0.2)
        over.set()


def test_what_speaks_no_tls():
    with listening(
        lambda call: call.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" * bool(call.recv(9)))
    ) as port:
        assert said(f"127.0.0.1:{port}") == (
            f"server 127.0.0.1:{port}: what answers there does not speak TLS "
            "(WRONG_VERSION_NUMBER): is that the server's port?"
        )


def test_a_certificate_for_another_name_or_by_another_ca(made, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made / keys.SERVER, made / keys.SERVER_KEY)
    keys.make(tmp_path, servers=["127.0.0.1"], clients=["a"])
    own, other = (ssl.create_default_context(cafile=str(f / keys.CA)) for f in (made, tmp_path))

    def handshake(call):
        context.wrap_socket(call, server_side=True).close()

    with listening(handshake, "127.0.0.2") as port:
        assert said(f"127.0.0.2:{port}", own) == (
            f"server 127.0.0.2:{port}: its certificate is not for '127.0.0.2': name it in "
            "SITE.toml as its certificate does, or have the coordinator make one by 'fedkd deploy "
            "keys KEYS --server 127.0.0.2'"
        )
    with listening(handshake) as port:
        foreign = said(f"127.0.0.1:{port}", other)
        assert "its certificate is not by the federation's CA (" in foreign
        assert foreign.endswith("coordinator's ca.crt, and does nothing in between open TLS?")
        assert "the connection is cut; is server = " in said(f"127.0.0.1:{port}", own)


def test_a_proxy_that_is_dead_or_refuses_is_named_without_its_password(monkeypatch):
    port = free_port()
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:secret@127.0.0.1:{port}")
    text = said("fed.example.org:9400")
    assert text == (
        f"proxy 127.0.0.1:{port}: it refuses the connection, nothing listens there; the "
        "environment's HTTPS_PROXY or ALL_PROXY sends this site's messages that way: mend it, or "
        "set NO_PROXY=fed.example.org if the server can be reached without"
    )

    def forbid(call):
        call.recv(4096)
        call.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")

    with listening(forbid) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        assert "it does not pass the call on (403 Forbidden); " in said("fed.example.org:9400")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert said(f"127.0.0.1:{free_port()}").startswith("server 127.0.0.1:")


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (401, "its clock and this site's differ"),
        (409, "a site with its key is already connected"),
        (412, "its key is not among the clients'"),
        (502, "answers with status 502"),
    ],
)
def test_a_refusal_says_which(status, why):
    request = httpx.Request("POST", "https://fed:9400/v1/fleet/activate-node")
    error = httpx.HTTPStatusError("no", request=request, response=httpx.Response(status))
    assert why in explain(error, "fed:9400")


def test_a_cause_is_said_once_until_a_call_comes_through(capsys):
    voice = Voice("fed:9400")
    for cause in ("one", "one", "two", "two", None, None, "two"):
        with pytest.raises(httpx.ReadError) if cause else voice, voice:
            if cause:
                raise httpx.ReadError(cause)
    lines = capsys.readouterr().err.splitlines()
    assert [("one" in line, "two" in line, "again" in line) for line in lines] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
        (False, True, False),
    ]


def test_this_machine_is_called_past_the_environments_proxies(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.setenv("no_proxy", "example.org")
    for _ in range(2):
        call_own_directly()
    with listening(
        lambda call: call.sendall(b"HTTP/1.1 204 \r\n\r\n" * bool(call.recv(9)))
    ) as port:
        assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 204
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == "example.org,localhost,127.0.0.1,::1"


@pytest.mark.parametrize("names", ["*", "example.org, *", "*,example.org"])
def test_a_star_is_for_all_and_stays_so(monkeypatch, names):
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, names)
    assert proxy("fed.example.org") is None
    call_own_directly()
    assert proxy("fed.example.org") is None
    assert httpx._utils.get_environment_proxies() == {}


@pytest.mark.slow
def test_a_site_tries_on_and_says_the_cause_once(rows, tmp_path):
    lay_out(tiny.experiment(rows), tmp_path / "place")
    site = tmp_path / "place" / "sites" / "client-0000" / "SITE.toml"
    own = (tmp_path / "place" / "port").read_text()
    site.write_text(site.read_text().replace(f"127.0.0.1:{own}", "fed.example.org:9400"))
    log, calls = tmp_path / "log", []
    with listening(calls.append) as port:
        env = processes.environment(str(tmp_path), HTTPS_PROXY=f"http://127.0.0.1:{port}")
        started = processes.start(["-m", "fedkd", "deploy", "client", site], log, env)
        try:
            wait_until(lambda: len(calls) >= 3 or started.poll() is not None)
            text = log.read_text()
            assert started.poll() is None, text
        finally:
            started.terminate()
            started.wait(PATIENCE)
    assert text.count("error: ") == 1
    assert f"error: proxy 127.0.0.1:{port}: the connection is cut; the environment's " in text
    assert "Connection attempt failed" not in text
