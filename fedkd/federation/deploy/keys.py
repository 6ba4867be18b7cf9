"""Certificates and keys of a federation: a CA, the server's certificate, and one key a client.

TLS proves the server to its clients by the CA's certificate; a client proves itself by an elliptic
curve key whose public half the server knows. Every private file is readable by its owner alone, and
nothing that exists is written over.
"""

import ipaddress
import os
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedkd.errors import UsageError

CA, CA_KEY = "ca.crt", "ca.key"
SERVER, SERVER_KEY = "server.crt", "server.key"
CLIENTS = "clients"
"""The folder of the clients' keys: NAME is private, NAME.pub is public, in OpenSSH's format."""

_CA_DAYS, _SERVER_DAYS = 3650, 825
_CURVE = ec.SECP384R1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_LOCAL = ("localhost", "127.0.0.1", "::1")
"""Always among the server's names: its own commands speak to it on its own machine."""


def make(folder: Path, *, servers: Sequence[str], clients: Sequence[str]) -> list[Path]:
    """Make what is missing of a federation's keys.

    Args:
        folder: where they go; a CA that is there already signs, and clients join those there.
        servers: the names and addresses under which clients reach the server.
        clients: a name for each new client.

    Returns:
        The files made.

    Raises:
        UsageError: a name will not do, something exists already, or the CA is incomplete. Nothing
            was written.
    """
    _check(folder, servers, clients)
    files: dict[Path, Callable[[], bytes]] = {}
    if not (folder / CA).exists():
        ca_key = ec.generate_private_key(_CURVE())
        ca = _authority(ca_key)
        files |= {folder / CA_KEY: lambda: _pem(ca_key), folder / CA: lambda: _crt(ca)}
    else:
        ca_key, ca = _read_authority(folder)
    if servers:
        key = ec.generate_private_key(_CURVE())
        certificate = _certificate(key, servers, ca, ca_key)
        files |= {
            folder / SERVER_KEY: lambda: _pem(key),
            folder / SERVER: lambda: _crt(certificate),
        }
    for name in clients:
        client_key = ec.generate_private_key(_CURVE())
        files[folder / CLIENTS / name] = lambda key=client_key: _openssh(key)  # type: ignore[misc]
        files[folder / CLIENTS / f"{name}.pub"] = lambda key=client_key, name=name: (  # type: ignore[misc]
            _public(key, name)
        )
    for path, content in files.items():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_new(path, content())
    return list(files)


def public_keys(folder: Path) -> dict[str, bytes]:
    """The public keys of a federation's clients in PEM, by name in alphabetical order.

    Raises:
        UsageError: as `registered`.
    """
    return {
        name: key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        for name, key in registered(folder / CLIENTS).items()
    }


def registered(folder: Path) -> dict[str, ec.EllipticCurvePublicKey]:
    """The public keys in a folder, NAME.pub each, by name in alphabetical order.

    Raises:
        UsageError: a file is no elliptic curve key in OpenSSH's format, or two are the same.
    """
    found: dict[str, ec.EllipticCurvePublicKey] = {}
    for path in sorted(folder.glob("*.pub")):
        try:
            key = serialization.load_ssh_public_key(path.read_bytes())
        except ValueError as error:
            raise UsageError(f"{path}: is no public key in OpenSSH's format") from error
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise UsageError(
                f"{path}: is no elliptic curve key; make one by 'fedkd deploy keys' or "
                "'ssh-keygen -t ecdsa -b 384'"
            )
        for name, other in found.items():
            if key == other:
                raise UsageError(f"clients {name!r} and {path.stem!r} have the same key")
        found[path.stem] = key
    return found


def read_own(path: Path) -> ec.EllipticCurvePrivateKey:
    """A client's private key, in OpenSSH's format.

    Raises:
        UsageError: it is missing, or none.
    """
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: is no private key in OpenSSH's format ({error})") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UsageError(f"{path}: expected an elliptic curve key")
    return key


def server_names(folder: Path) -> set[str]:
    """The names and addresses that the server's certificate holds for.

    Raises:
        UsageError: it is damaged.
    """
    try:
        certificate = x509.load_pem_x509_certificate((folder / SERVER).read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound) as error:
        raise UsageError(f"{folder / SERVER} is damaged or names no host ({error})") from error
    return {str(name.value) for name in names}


def _check(folder: Path, servers: Sequence[str], clients: Sequence[str]) -> None:
    for name in clients:
        if not _NAME.fullmatch(name) or name.endswith(".pub"):
            raise UsageError(
                f"client {name!r}: expected letters, digits, '.', '_' and '-', at most 63"
            )
    if twice := {name for name in clients if clients.count(name) > 1}:
        raise UsageError(f"client {min(twice)!r} is named twice")
    for host in servers:
        if not re.fullmatch(r"[A-Za-z0-9.:-]{1,253}", host):
            raise UsageError(f"server {host!r}: expected a host name or an IP address")
    if not servers and not (folder / SERVER).exists():
        raise UsageError(
            "--server is missing: under which name or address do clients reach the server?"
        )
    wanted = [*([SERVER, SERVER_KEY] if servers else ()), *(f"{CLIENTS}/{n}" for n in clients)]
    existing = [name for name in wanted if (folder / name).exists()]
    if not wanted or existing:
        what = f"{folder / existing[0]} exists" if existing else "nothing to make"
        raise UsageError(
            f"{what}: a key is never written over; name other clients, or move the file away"
        )
    if (folder / CA).exists() != (folder / CA_KEY).exists():
        raise UsageError(
            f"{folder}: {CA} and {CA_KEY} belong together, and one is missing: restore it, or "
            "start with another folder"
        )


def _read_authority(folder: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    try:
        key = serialization.load_pem_private_key((folder / CA_KEY).read_bytes(), password=None)
        ca = x509.load_pem_x509_certificate((folder / CA).read_bytes())
    except ValueError as error:
        raise UsageError(f"{folder}: {CA} or {CA_KEY} is damaged ({error})") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UsageError(f"{folder / CA_KEY}: expected an elliptic curve key")
    return key, ca


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedkd federation CA")])
    return (
        _builder(name, name, key.public_key(), _CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )


def _certificate(
    key: ec.EllipticCurvePrivateKey,
    hosts: Sequence[str],
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    names = [_general_name(host) for host in dict.fromkeys([*hosts, *_LOCAL])]
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    return (
        _builder(subject, ca.subject, key.public_key(), _SERVER_DAYS)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(issuer_id, critical=False)
        .sign(ca_key, hashes.SHA384())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))  # clocks differ
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _openssh(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )


def _public(key: ec.EllipticCurvePrivateKey, name: str) -> bytes:
    line = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return line + f" {name}\n".encode()


def _crt(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write_new(path: Path, content: bytes) -> None:
    """Write a file that does not exist yet, never readable by others, not even for a moment."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
