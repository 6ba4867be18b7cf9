"""Why no connection to the server comes about, in words that name the remedy."""

import socket
import ssl
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

_PROXIES = ("HTTPS_PROXY", "ALL_PROXY")
_ANOTHERS_NAME, _OUT_OF_DATE = (62, 64), (9, 10)
"""OpenSSL's X509_V_ERR_* numbers: of a name or an address, and not yet or no longer valid."""
_REFUSALS = {
    401: "does not let this site in: its clock and this site's differ by more than a few seconds",
    409: "does not let this site in: a site with its key is already connected, and a key is for "
    "one site at a time; one that was killed, or that lost its state folder, counts as connected "
    "for a minute: start again then",
    412: "does not let this site in: its key is not among the clients' that the server started "
    "with; the coordinator puts its .pub file there and starts the server again",
}
"""By the status that Flower or the door answers with."""


class Voice:
    """Says on the terminal why calls to a server fail: each cause once, until a call comes through.

    Flower tries again without end, and each time says that and no more. Use it as a context manager
    around each call.

    Args:
        address: `server` of SITE.toml, `host:port`.
    """

    def __init__(self, address: str) -> None:
        self._address, self._said = address, ""

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, httpx.TransportError) or (
            isinstance(error, httpx.HTTPStatusError) and error.response.is_server_error
        ):
            self.say(error)
        elif error is None and self._said:
            sys.stderr.write(f"server {self._address} answers again\n")
            self._said = ""

    def say(self, error: httpx.HTTPError) -> None:
        """Say why, unless that was the last thing said."""
        if (why := explain(error, self._address)) != self._said:
            self._said = why
            sys.stderr.write(f"error: {why}\n")


def explain(error: httpx.HTTPError, address: str) -> str:
    """The cause of a call that failed, or of a refusal to let a site in, and what to do about it.

    Args:
        error: what httpx raised.
        address: `server` of SITE.toml, `host:port`.
    """
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        return f"server {address} {_REFUSALS.get(status, f'answers with status {status}')}"
    host = urlsplit(f"//{address}").hostname or address
    via = proxy(host)
    causes = list(_chain(error))
    by_tls = next((each for each in causes if isinstance(each, ssl.SSLError)), None)
    if by_tls is not None:
        return f"server {address}: {_tls(by_tls, host)}"
    where = f"server {address}" if via is None else f"proxy {via}"
    found = next((text for each in causes if (text := _network(each))), repr(error))
    remedy = (
        f"is server = {address!r} right, does it run, is its port open to this site?"
        if via is None
        else f"the environment's {' or '.join(_PROXIES)} sends this site's messages that way: mend "
        f"it, or set NO_PROXY={host} if the server can be reached without"
    )
    return f"{where}: {found}; {remedy}"


def proxy(host: str) -> str | None:
    """The proxy that the environment has for a host, without a password in it; None: none."""
    named = getproxies()
    url = named.get("https") or named.get("all")
    for_none = "*" in map(str.strip, named.get("no", "").split(","))
    if not url or for_none or proxy_bypass(host):
        return None
    parts = urlsplit(url if "//" in url else f"//{url}")
    return parts.netloc.rpartition("@")[2]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _network(error: BaseException) -> str:
    """What one exception of a chain says of the network; empty where it says nothing."""
    match error:
        case socket.gaierror():
            reason = f"its name is not known here ({error.strerror})"
        case ConnectionRefusedError():
            reason = "it refuses the connection, nothing listens there"
        case httpx.ProxyError():
            reason = f"it does not pass the call on ({error})"
        case httpx.TimeoutException() | TimeoutError():
            reason = "no answer in time"
        case ConnectionError() | httpx.RemoteProtocolError():
            reason = "the connection is cut"
        case OSError():
            reason = error.strerror or ""
        case _:
            reason = ""
    return reason


def _tls(error: ssl.SSLError, host: str) -> str:
    if not isinstance(error, ssl.SSLCertVerificationError):
        return f"what answers there does not speak TLS ({error.reason}): is that the server's port?"
    match error.verify_code:
        case code if code in _ANOTHERS_NAME:
            return (
                f"its certificate is not for {host!r}: name it in SITE.toml as its certificate "
                "does, or have the coordinator make one by 'fedkd deploy keys KEYS --server "
                f"{host}'"
            )
        case code if code in _OUT_OF_DATE:
            return (
                f"{error.verify_message}: is this machine's clock right? If so, the coordinator "
                "makes a new one, see 'Certificates' in docs/deploy.md"
            )
    return (
        f"its certificate is not by the federation's CA ({error.verify_message}): is 'ca' in "
        "SITE.toml the coordinator's ca.crt, and does nothing in between open TLS?"
    )
