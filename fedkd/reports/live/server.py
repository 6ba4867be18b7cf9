"""The page's server: on this machine alone, for whoever knows its address.

Another site in the same browser can send requests here, and by a name of its own that leads to
127.0.0.1 even read the answers; so can every user of this machine. Against these: the address holds
a random token, `Host` and `Origin` must be this server's own, and the page may load nothing, and be
framed by nobody.
"""

import hmac
import json
import secrets
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fedkd.errors import FedkdError, UsageError

HOST = "127.0.0.1"
_SLOW = 10.0
"""Seconds that a request may take to come in."""
_MOST = 1000
"""Bytes of a request's body."""
_REPORT = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"


@dataclass(frozen=True)
class PageSource:
    """What the page shows, and what it may do.

    Attributes:
        look: what is shown now, as JSON values.
        report: the run's report, if it has one.
        stop: stops a run, by the number that the page was given for it, and says so; raises a
            `FedkdError` where it may not.
    """

    look: Callable[[], dict[str, Any]]
    report: Callable[[], bytes | None]
    stop: Callable[[int], str]


class LiveServer(ThreadingHTTPServer):
    """Serves the page.

    Args:
        source: what it shows.
        port: where; 0 takes a free one.

    Raises:
        UsageError: the port is taken, or not for this user.
    """

    daemon_threads = True

    def __init__(self, source: PageSource, port: int = 0) -> None:
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UsageError(
                f"port {port} on {HOST}: {error.strerror}; name another with --port"
            ) from error
        self.source = source
        self.token = secrets.token_urlsafe(24)
        own = self.server_address[1]
        self.hosts = (f"{HOST}:{own}", f"localhost:{own}")

    @property
    def url(self) -> str:
        """The page's address, which is for nobody else."""
        return f"http://{self.hosts[0]}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away amid an answer is nothing to tell of."""


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer
    timeout = _SLOW
    server_version, sys_version = "fedkd", ""

    def do_GET(self) -> None:
        """The page, what it shows, the report."""
        if (part := self._part()) is None:
            return
        if part == "":
            content, policy = page()
            self._answer(HTTPStatus.OK, content, "text/html; charset=utf-8", policy)
        elif part == "state":
            self._say(HTTPStatus.OK, self.server.source.look())
        elif part == "report" and (report := self.server.source.report()) is not None:
            self._answer(HTTPStatus.OK, report, "text/html; charset=utf-8", _REPORT)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")

    def do_POST(self) -> None:
        """Stop the run."""
        if (part := self._part(acts=True)) is None:
            return
        if part != "stop":
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing to do here")
            return
        if (run := self._run()) is None:
            self._refuse(HTTPStatus.BAD_REQUEST, 'expected JSON, {"run": "NUMBER"}')
            return
        try:
            self._say(HTTPStatus.OK, {"says": self.server.source.stop(run)})
        except FedkdError as error:
            self._refuse(HTTPStatus.CONFLICT, str(error))

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the address holds the token."""

    def _part(self, *, acts: bool = False) -> str | None:
        """What of the page is asked for; None where the answer is no, and has been sent."""
        hosts, origins = self._all("Host"), self._all("Origin")
        own = {f"http://{host}" for host in self.server.hosts}
        if len(hosts) != 1 or hosts[0] not in self.server.hosts:
            self._refuse(HTTPStatus.FORBIDDEN, "this is not the host that was asked for")
        elif (acts and len(origins) != 1) or not own.issuperset(origins):
            self._refuse(HTTPStatus.FORBIDDEN, "another site may not ask this")
        else:
            _, _, path = self.path.partition("/")
            token, slash, part = path.partition("/")
            if slash and hmac.compare_digest(token.encode(), self.server.token.encode()):
                return part
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here; see the command's own line")
        return None

    def _all(self, name: str) -> list[str]:
        return self.headers.get_all(name) or []

    def _run(self) -> int | None:
        """The number of the run that is to stop, as the body has it."""
        try:
            length = int(self.headers.get("Content-Length", ""))
            body = json.loads(self.rfile.read(length)) if 0 <= length <= _MOST else None
        except ValueError:
            return None
        run = body.get("run") if isinstance(body, dict) else None
        return int(run) if isinstance(run, str) and run.isdecimal() else None

    def _say(self, status: HTTPStatus, values: dict[str, Any]) -> None:
        content = json.dumps(values, allow_nan=False).encode()
        self._answer(status, content, "application/json", "default-src 'none'")

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._say(status, {"says": why})

    def _answer(self, status: HTTPStatus, content: bytes, kind: str, policy: str) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(content))),
            ("Content-Security-Policy", f"{policy}; frame-ancestors 'none'"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


@cache
def page() -> tuple[bytes, str]:
    """The page, with all that it needs inside, and the policy by which nothing else may run."""
    here = Path(__file__).parent
    html, style, script = (
        (here / name).read_text("utf-8") for name in ("page.html", "page.css", "page.js")
    )
    content = html.replace("/*style*/", style).replace("/*script*/", script)
    allowed = [
        f"{what}-src 'sha256-{b64encode(sha256(inline.encode()).digest()).decode()}'"
        for what, inline in (("style", style), ("script", script))
    ]
    policy = ["default-src 'none'", *allowed, "connect-src 'self'", "img-src data:"]
    return content.encode(), "; ".join([*policy, "base-uri 'none'", "form-action 'none'"])
