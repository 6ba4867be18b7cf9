"""What is looked at in a client's answer before it is let in: its form, its scores, its model."""

import torch
from torch import Tensor

from fedkd.errors import MessageError
from fedkd.exchange.codec import decode
from fedkd.exchange.messages import Tensors
from fedkd.federation import personal, report
from fedkd.federation.prepare import PreparedExperiment
from fedkd.rows import first

_PROBES = 32


def checked(
    prepared: PreparedExperiment, client: int, payload: bytes, *, state: Tensors | None = None
) -> dict[str, Tensor]:
    """An answer that may be let in; otherwise a MessageError says why not.

    The server's `state` has what a client's answers may be differences from.
    """
    upload = decode(payload, prepared.on_the_wire(client))
    if prepared.forms is not None:
        upload = prepared.forms.let_in(upload, client, state or {})
    report.check(upload, prepared.setting.task.scores, prepared.test_totals)
    personal.check(upload, prepared.setting.task.numbers)
    if not prepared.setting.securely:  # under masks nothing can be tried
        _probe(prepared, client, upload)
    return upload


def _probe(prepared: PreparedExperiment, client: int, upload: Tensors) -> None:
    """Refuse a model that overflows.

    Raises:
        MessageError: its answers are not finite.
    """
    answers = prepared.method.probe(
        prepared.setting, client, upload, first(prepared.data.test.x, _PROBES)
    )
    if answers is not None and not bool(torch.isfinite(answers).all()):
        raise MessageError("field 'model': its answers are NaN or infinity")
