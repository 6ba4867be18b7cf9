"""Flower's SuperLink, the server's process."""

import asyncio
import sys
from base64 import b64decode
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm


def serve_superlink(
    arguments: Sequence[str], guard: Callable[..., Any], connection: type[asyncio.Protocol]
) -> None:
    """Run Flower's SuperLink in this process until it is told to stop.

    Args:
        arguments: of `flower-superlink`.
        guard: makes an ASGI middleware, put before everything that the SuperLink serves.
        connection: uvicorn's protocol for a connection.
    """
    import uvicorn
    from flwr.superlink import main

    command = import_module("flwr.superlink.cli.flower_superlink")
    make = main.create_app

    class Guarded:
        """Of Flower's `uvicorn`: it serves without a limit of any kind."""

        run = staticmethod(partial(uvicorn.run, http=connection, ws="none"))

    def guarded(*args: Any) -> Any:
        app = make(*args)
        app.add_middleware(guard)
        return app

    main.create_app = guarded  # type: ignore[assignment]
    command.uvicorn = Guarded  # type: ignore[attr-defined]
    sys.argv = ["flower-superlink", *arguments]
    command.flower_superlink()


def signed_by(keys: Collection[bytes], headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether one of these public keys, PEM, signed a request to Fleet, by its headers.

    A stranger's key is not even parsed, so that whoever has none cannot keep the server busy. How
    old the signature is, and whose request it is, Flower looks at once it has read it.
    """
    from flwr.common.constant import TIMESTAMP_HEADER
    from flwr.supercore import constant
    from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature

    sent = dict(headers)
    names = (constant.FLEET_HTTP_PUBLIC_KEY_HEADER, constant.FLEET_HTTP_SIGNATURE_HEADER)
    try:
        key, signature = (b64decode(sent[name.lower().encode()], validate=True) for name in names)
        signed = sent[TIMESTAMP_HEADER.lower().encode()]
        return key in keys and verify_signature(bytes_to_public_key(key), signed, signature)
    except (KeyError, ValueError, TypeError, AttributeError, UnsupportedAlgorithm):
        return False
