"""Replay votes: whether noise turns as many as is claimed, and how many of them a record moves."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fedkd import rng
from fedkd.auditing.entropy import check_source
from fedkd.auditing.sizes import check_share
from fedkd.auditing.verdicts import Check, checked
from fedkd.clock import Clock
from fedkd.data.types import Samples
from fedkd.exchange.messages import PostProcessing, Provenance
from fedkd.federation.prepare import PreparedExperiment
from fedkd.jobs.audit.unwritten import Unwritten
from fedkd.methods.core.base import ClientContext, ServerContext
from fedkd.methods.core.votes import Count, Voting
from fedkd.models import probes
from fedkd.privacy.events import Unprotected
from fedkd.rows import whole

_RECORDS = 64
"""Of a client's records, that teach once with the last of them and once without."""
_LOUD = 1e4
"""What the last one's inputs are multiplied by."""


def check_combined(server: ServerContext) -> list[Check]:
    """Under `client-votes`: the noise that the server adds to votes of clients."""
    classes = server.setting.classes

    def ask(votes: Tensor, rows: int) -> Tensor:
        answers = F.one_hot(votes, classes).float()[:, None].expand(-1, rows, -1)
        return server.protect(answers)[0, :, 0]

    return _noise("votes", server.setting.combining(1).noise_multiplier, ask)


def check_elections(prepared: PreparedExperiment, voting: Voting) -> list[Check]:
    """Under `record`: the noise on votes of a client's teachers, and whose a record moves."""
    held = prepared.data.clients
    number = next((client for client, each in enumerate(held) if len(each)), 0)
    setting, classes = prepared.setting.of_client(number), prepared.setting.classes
    own = (held[number] if len(held[number]) else prepared.data.test).seen_by(
        prepared.setting.clients_sight(number)
    )
    few = _with_a_loud_one(own.subset(torch.arange(min(_RECORDS, len(own)))), prepared, number)
    clock = Clock(lambda *_: None)
    client = _Voter(setting, 1, number, few, {}, clock, allowance=Unwritten())

    def ask(votes: Tensor, rows: int) -> Tensor:
        counts = F.one_hot(votes, classes).sum(dim=0).expand(rows, -1)
        labels, _ = ClientContext.elected(client, Voting(rows, len(votes)), lambda *_: counts)
        return (labels == 0).long()

    found = _noise("votes of teachers", voting.event(setting).noise_multiplier, ask)
    prepared.method.client(client, {})
    return [*found, client.moved]


def _with_a_loud_one(few: Samples, prepared: PreparedExperiment, client: int) -> Samples:
    """The records, of which the last has far too large inputs, if the client's model takes such.

    So whom it teaches votes otherwise; and if training fails over it, that must move no other vote.
    """
    factors = torch.ones(len(few)).double()
    factors[-1] = _LOUD
    inputs = whole(few.x)
    x = inputs * factors.to(inputs.dtype).view(-1, *[1] * (inputs.dim() - 1))
    spec = prepared.experiment.client_model(client)
    model = prepared.setting.of_client(client).build(spec, purpose="specification")
    return Samples(x, few.y) if probes.takes(model, x) else few


class _Voter(ClientContext):
    """A client whose teachers vote with all of its records, and without the last of them."""

    moved: Check

    def elected(self, voting: Voting, count: Count) -> tuple[Tensor, Provenance]:
        """See `ClientContext`."""
        less = self._data.subset(torch.arange(len(self._data) - 1))
        every, without = (
            count(each, rng.stream(0, purpose="audit votes")) for each in (self._data, less)
        )
        self.moved = _moved(every, without, voting)
        return every.argmax(dim=1), PostProcessing(of=Unprotected("votes of teachers"))


def _moved(every: Tensor, less: Tensor, voting: Voting) -> Check:
    """Of each query that is paid for at most one vote, so that no two counts move by more."""
    what = "votes that one record moves"
    most = int((every - less).abs().sum(dim=1).max()) / 2
    if not most:
        return Check(what, "NO POWER", "the record that was left out moved no vote")
    cast = torch.stack([every, less]).sum(dim=2)
    found = (
        f"at most {most:g} of {voting.voters} on each of {len(every):,} queries; expected at most "
        f"1, on {voting.queries:,}"
    )
    right = most <= 1 and len(every) == voting.queries and bool((cast == voting.voters).all())
    return checked(what, right, found)


def _noise(what: str, noise_multiplier: float, ask: Callable[[Tensor, int], Tensor]) -> list[Check]:
    """Two classes are apart by one standard deviation of the difference, all others have none.

    They are one vote apart at the least, which little noise seldom turns: it is asked more often.

    Args:
        what: the votes are of.
        noise_multiplier: of the noise, over the sqrt(2) that one vote moves.
        ask: votes (K,), the same on so many queries -> whether class 0 wins each, 1 or 0.
    """
    rows = 500 if noise_multiplier > 1 else 4000
    noise = noise_multiplier * math.sqrt(2)
    apart = max(1, round(math.sqrt(2) * noise))
    fewer = math.ceil(20 * noise)
    votes = torch.cat([torch.zeros(fewer + apart), torch.ones(fewer)]).long()
    expected = 0.5 * math.erfc(-apart / (2 * noise))
    return [
        check_share(f"noise on {what}", int(ask(votes, rows).sum()), rows, expected),
        check_source(what, lambda: ask(votes, rows)),
    ]
