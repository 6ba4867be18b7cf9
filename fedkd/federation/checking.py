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
    prepared: PreparedExperiment, round: int, client: int, payload: bytes
) -> dict[str, Tensor]:
    """An answer to a round that may be let in; otherwise a MessageError says why not."""
    upload = decode(payload, prepared.expects(client, round))
    report.check(upload, prepared.setting.task.scores, prepared.scoring.totals(round))
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
