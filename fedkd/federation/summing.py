"""A round under secure aggregation, as the server sees it: keys, shares, answers, their sum."""

import math
from dataclasses import replace
from hashlib import sha256

import numpy as np
from torch import Tensor

from fedkd.errors import FederationError
from fedkd.exchange.codec import encode
from fedkd.exchange.masking import streams
from fedkd.exchange.masking.fixed_point import SHORT_RANGE, carries, floating
from fedkd.exchange.masking.streams import Words
from fedkd.exchange.masking.unmasking import unmask
from fedkd.exchange.messages import Broadcast, Tensors
from fedkd.federation.answers import Answers
from fedkd.federation.checking import checked
from fedkd.federation.client import ACTION
from fedkd.federation.cohort import Connected, Question, ask, require_quorum
from fedkd.federation.prepare import PreparedExperiment
from fedkd.federation.secure import messages


def ask_for_sum(clients: Connected, cohort: list[int], broadcast: Broadcast, round: int) -> Answers:
    """As `cohort.ask`, in four messages; what comes back has the sum of all answers that came.

    Whoever is lost at whatever step, the round goes on as long as a quorum is left: who is lost
    before its answer came is left out of the sum, and who is lost after it is in it.

    Raises:
        QuorumError: too few are left.
        BudgetError: likewise, where privacy budgets are among the reasons.
        FederationError: what clients opened does not take the masks off.
    """
    setting, whole = clients.prepared.setting, Answers(cohort, ledger_heads=clients.ledger_heads)

    def go(question: Question, told: Broadcast) -> dict[int, Tensors]:
        answers = ask(clients, list(whole.uploads) or cohort, told, round, question=question)
        whole.after(answers)
        require_quorum(clients.prepared, round, whole)
        return answers.uploads

    made = Question(messages.KEYS, lambda _, __, payload: messages.read_keys(payload))
    roster = messages.of_roster(go(made, Broadcast()))
    keys = {client: each.pairs for client, each in messages.read_roster(roster).items()}
    circle = messages.circle(keys, setting, round)
    around = circle.neighbours

    shared = go(
        Question(messages.SHARES, lambda _, c, payload: messages.check_shares(payload, around[c])),
        Broadcast(roster),
    )
    beside = {c: encode(each) for c, each in messages.passed_on(circle, shared).items()}
    told = replace(broadcast, common={**broadcast.common, **messages.of_clients(shared)})
    summing = Summing(clients.prepared, cohort[0])
    answered = go(Question(ACTION, summing.take, beside), told)

    def opening(_: int, client: int, payload: bytes) -> Tensors:
        return messages.check_opening(payload, around[client], shared, answered)

    failures = dict(whole.failures)
    opened = go(Question(messages.OPEN, opening), Broadcast(messages.of_clients(answered)))
    openings = {c: messages.read_opening(each, around[c], answered) for c, each in opened.items()}
    said = encode(told.to(str(clients.prepared.experiment.client_model(cohort[0]))))
    unmask(summing.words, circle, shared, answered, openings, sha256(said).digest())
    whole.uploads, whole.failures = answered, failures  # who is lost by now is in the sum
    whole.total = summing.total(len(answered))
    return whole


class Summing:
    """Answers that are added up as they come in, so that no two are held at a time."""

    def __init__(self, prepared: PreparedExperiment, client: int) -> None:
        specs = messages.expected(prepared.method.expects(prepared.setting, client))
        self._prepared = prepared
        self._shapes = {name: spec.shape for name, spec in specs.items()}
        word = specs[messages.MEMBERS].dtype.itemsize
        self.words: Words = np.zeros(sum(map(math.prod, self._shapes.values())), f"u{word}")

    def take(self, round: int, client: int, payload: bytes) -> dict[str, Tensor]:
        """Add an answer, and hand back what is beside the sum.

        Raises:
            MessageError: it is not as it must be.
        """
        upload = checked(self._prepared, round, client, payload)
        self.words += streams.flat({name: upload.pop(name) for name in self._shapes})
        return upload

    def total(self, clients: int) -> dict[str, Tensor]:
        """The sum in float64, once the masks are off.

        Raises:
            FederationError: they are not, or it is beyond what 16 bits carry.
        """
        sums = streams.shaped(self.words, self._shapes)
        came_off = bool((sums.pop(messages.MEMBERS) == clients).all())
        held = all(carries(each, parties=clients) for each in sums.values())
        if came_off and not held and self.words.itemsize == 2:
            raise FederationError(
                f"the sum of {clients} clients is beyond the {SHORT_RANGE:,} steps that 16 bits "
                "carry, and running again would cost anew: take method.precision = 'float32'"
            )
        if not (came_off and held):
            raise FederationError(
                f"the masks of {clients} clients do not come off: one of them sent or opened what "
                "it should not; run again with --resume"
            )
        return floating(sums)
