"""A worker's side: it answers one call after another, and passes on what is said meanwhile."""

import copy
import logging
import sys
import warnings
from collections.abc import Callable

from flwr.app import Context, Message

from fedkd.federation.client import WATCHER
from fedkd.federation.inprocess import crashed
from fedkd.federation.workers.channel import Channel

REPLY, STEP, RECORD, WARNING = "reply", "step", "record", "warning"
"""What a worker sends: an answer; a client's step for whoever watches; a line of a log; a
warning."""

Tell = Callable[..., None]


def serve(app: Callable[[Message, Context], Message], channel: Channel) -> None:
    """Answer calls by `app` until the other end of the channel is gone."""
    _relay_words(channel.send)
    WATCHER.set(lambda *step: channel.send(STEP, *step))
    while True:
        try:
            message, context = channel.receive()
        except EOFError:
            return
        try:
            reply = app(message, context)
        except BaseException as error:  # noqa: BLE001 - sys.exit() in a client must not end its worker
            reply = crashed(message, error)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        channel.send(REPLY, reply, context.state)


def _relay_words(tell: Tell) -> None:
    """Have all that is logged and warned of said where the displays and log files are."""
    known = logging.root.manager.loggerDict.values()
    for logger in (logging.root, *(each for each in known if isinstance(each, logging.Logger))):
        logger.handlers, logger.propagate = [], True
    logging.root.handlers = [_Relay(tell)]
    warnings.showwarning = lambda message, category, file, line, *_: tell(
        WARNING, str(message), category, file, line
    )
    # What these were replaced by, a display say, belongs to threads that no fork has.
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__


class _Relay(logging.Handler):
    """Sends lines as whoever handles them gets them, an exception written out."""

    def __init__(self, tell: Tell) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        sent = copy.copy(record)
        if record.exc_info and not record.exc_text:
            sent.exc_text = logging.Formatter().formatException(record.exc_info)
        sent.msg, sent.args, sent.exc_info = record.getMessage(), None, None
        self._tell(RECORD, sent)
