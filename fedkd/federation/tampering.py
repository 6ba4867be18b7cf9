"""Hostile clients: what they send in place of their own answers, let in by the door as any is.

For measuring what an attack does to a federation; a deployment's server has no such thing.
"""

from collections.abc import Mapping
from typing import Protocol

from fedkd.errors import MessageError
from fedkd.exchange.codec import decode, encode
from fedkd.exchange.messages import Broadcast, Tensors
from fedkd.federation.answers import Answers
from fedkd.federation.checking import checked
from fedkd.federation.prepare import PreparedExperiment


class Tamper(Protocol):
    """What hostile clients make of a round."""

    def __call__(
        self, round: int, broadcast: Broadcast, uploads: Mapping[int, Tensors], /
    ) -> Mapping[int, Tensors]:
        """What hostile clients send, by client; whoever is not named sends its own.

        It keeps nothing from round to round, so that a run that is resumed is the same.

        Args:
            round: from 1.
            broadcast: what clients were sent.
            uploads: what all clients that answered would send, hostile ones too.
        """


def tamper_with(
    answers: Answers,
    tamper: Tamper,
    prepared: PreparedExperiment,
    round: int,
    broadcast: Broadcast,
) -> None:
    """Put what hostile clients send in the place of their own answers.

    It is encoded and checked as what comes from a wire, and what the door refuses is a failure,
    with its reason. A client that did not answer sends nothing.

    Raises:
        ValueError: under secure aggregation, where nobody's own answer is at hand.
    """
    if answers.total is not None:
        raise ValueError("Expected answers of each client: the sum of all cannot be tampered with.")
    for client, sent in tamper(round, broadcast, dict(answers.uploads)).items():
        if client not in answers.uploads:
            continue
        try:
            payload = encode(sent)
            if prepared.forms is not None:
                plain = decode(payload, prepared.expects(client, round))
                written, _ = prepared.forms.written(plain, {}, {}, round)
                payload = encode(written)
            answers.uploads[client] = checked(prepared, round, client, payload)
            answers.asked.pop(client, None)
            answers.forged.add(client)
        except MessageError as error:
            del answers.uploads[client]
            answers.failures[client] = str(error)
