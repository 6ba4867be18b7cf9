"""Certificates and keys: what they prove, who may read them, and that none is written over."""

import ssl
import stat
from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_public_key, load_ssh_private_key

from fedkd.errors import UsageError
from fedkd.federation.deploy import keys


def handshake(server, trusted, name):
    """TLS in memory between a server's certificate and a client that trusts a CA."""
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.load_cert_chain(server / keys.SERVER, server / keys.SERVER_KEY)
    calling = ssl.create_default_context(cafile=str(trusted / keys.CA))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = calling.wrap_bio(to_client, to_server, server_hostname=name)
    there = accepting.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for side in (here, there):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return here.version()


def test_the_certificate_holds_for_the_servers_names_and_for_no_other(tmp_path):
    keys.make(tmp_path, servers=["fed.example.org", "192.0.2.7"], clients=["a"])
    for name in ("fed.example.org", "192.0.2.7", "localhost", "127.0.0.1", "::1"):
        assert handshake(tmp_path, tmp_path, name) == "TLSv1.3"
    for name in ("example.org", "192.0.2.8"):
        with pytest.raises(ssl.SSLCertVerificationError, match="match"):
            handshake(tmp_path, tmp_path, name)


def test_another_federations_certificate_is_not_believed(tmp_path):
    for folder in ("ours", "theirs"):
        keys.make(tmp_path / folder, servers=["fed.example.org"], clients=["a"])
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path / "theirs", tmp_path / "ours", "fed.example.org")


def test_every_file_is_its_owners_alone(tmp_path):
    made = keys.make(tmp_path / "keys", servers=["h"], clients=["a", "b"])
    assert len(made) == 8
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o600}
    folders = {path.parent for path in made}
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}


def test_a_client_that_joins_later_leaves_the_others_as_they_are(tmp_path):
    keys.make(tmp_path, servers=["h"], clients=["b"])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    keys.make(tmp_path, servers=[], clients=["a"])
    assert {path: path.read_bytes() for path in before} == before
    assert list(keys.public_keys(tmp_path)) == ["a", "b"]
    assert len(set(keys.public_keys(tmp_path).values())) == 2


def test_the_public_half_belongs_to_the_private_one(tmp_path):
    keys.make(tmp_path, servers=["h"], clients=["a"])
    private = load_ssh_private_key((tmp_path / keys.CLIENTS / "a").read_bytes(), None)
    assert private.curve.name == "secp384r1"
    public = private.public_key().public_numbers()
    assert load_pem_public_key(keys.public_keys(tmp_path)["a"]).public_numbers() == public


def test_the_ca_signs_servers_and_nothing_else(tmp_path):
    keys.make(tmp_path, servers=["h"], clients=["a"])
    ca, server = (
        x509.load_pem_x509_certificate((tmp_path / name).read_bytes())
        for name in (keys.CA, keys.SERVER)
    )
    server.verify_directly_issued_by(ca)
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (constraints.ca, constraints.path_length) == (True, 0)
    assert not server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert (server.not_valid_after_utc - server.not_valid_before_utc).days == 825


@pytest.mark.parametrize(
    ("servers", "clients", "complaint"),
    [
        ([], ["a"], "--server is missing"),
        (["h"], ["../a"], "client '../a': expected letters"),
        (["h"], ["a.pub"], r"client 'a\.pub'"),
        (["h"], ["a", "a"], "client 'a' is named twice"),
        (["h h"], ["a"], "server 'h h': expected a host name"),
    ],
)
def test_a_wrong_name_is_refused_and_nothing_written(tmp_path, servers, clients, complaint):
    with pytest.raises(UsageError, match=complaint):
        keys.make(tmp_path / "keys", servers=servers, clients=clients)
    assert not (tmp_path / "keys").exists()


def test_nothing_is_written_over(tmp_path):
    keys.make(tmp_path, servers=["h"], clients=["a"])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for servers, clients in ((["h"], ["b"]), ([], ["b", "a"]), ([], [])):
        with pytest.raises(UsageError, match="a key is never written over"):
            keys.make(tmp_path, servers=servers, clients=clients)
    (tmp_path / keys.CA_KEY).unlink()
    with pytest.raises(UsageError, match="belong together"):
        keys.make(tmp_path, servers=[], clients=["c"])
    del before[tmp_path / keys.CA_KEY]
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_two_clients_with_one_key_are_not_two(tmp_path):
    keys.make(tmp_path, servers=["h"], clients=["a"])
    (tmp_path / keys.CLIENTS / "b.pub").write_bytes(
        (tmp_path / keys.CLIENTS / "a.pub").read_bytes()
    )
    with pytest.raises(UsageError, match="clients 'a' and 'b' have the same key"):
        keys.public_keys(tmp_path)


def test_a_public_key_that_is_none_is_named(tmp_path):
    keys.make(tmp_path, servers=["h"], clients=["a"])
    (tmp_path / keys.CLIENTS / "b.pub").write_text("ssh-ed25519 nonsense")
    with pytest.raises(UsageError, match=r"b\.pub: is no public key"):
        keys.public_keys(tmp_path)
    (tmp_path / keys.CLIENTS / "b.pub").write_text(
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBm0D8mUjYkTQwgKGQ0cRXrKZ8kJtYF1s5W3k1xg7jYV b"
    )
    with pytest.raises(UsageError, match=r"b\.pub: is no elliptic curve key"):
        keys.public_keys(tmp_path)
