"""What the server asks before it opens."""

import socket

import pytest

from fedkd import locks
from fedkd.errors import UsageError
from fedkd.federation.deploy import keys
from fedkd.federation.deploy.superlink import Server, serve


def test_an_address_that_its_certificate_does_not_name_is_refused(tmp_path):
    keys.make(tmp_path / "keys", servers=["fed.example.org"], clients=["a"])
    with pytest.raises(UsageError, match=r"does not name 192\.0\.2\.1, where .* --server 192"):
        serve(tmp_path / "state", tmp_path / "keys", host="192.0.2.1", port=9400)


def test_what_is_missing_or_taken_is_named(tmp_path):
    state, folder = tmp_path / "state", tmp_path / "keys"
    with pytest.raises(UsageError, match=r"ca\.crt is missing: make keys by 'fedkd deploy keys"):
        serve(state, folder, host="127.0.0.1", port=1)
    keys.make(folder, servers=["h"], clients=["a"])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} on 127.0.0.1: Address already in use"):
            serve(state, folder, host="127.0.0.1", port=port)
    (folder / keys.CLIENTS / "a.pub").unlink()
    with pytest.raises(UsageError, match="holds no client's public key"):
        serve(state, folder, host="127.0.0.1", port=1)
    with pytest.raises(UsageError, match="no server was started with this state folder"):
        Server.read(tmp_path)


def test_a_folder_is_one_processs_at_a_time(tmp_path):
    lock = locks.hold(tmp_path, "a server")
    assert locks.held(tmp_path)
    with pytest.raises(UsageError, match=r"is in use: a server runs .*, stop it, or take"):
        locks.hold(tmp_path, "a server")
    lock.release()
    assert not locks.held(tmp_path)
