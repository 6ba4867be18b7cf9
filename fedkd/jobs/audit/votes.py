"""Replay votes: whether noise turns as many as is claimed, and how many of them a record moves."""

import math
from collections.abc import Callable, Sequence

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
"""Of a client's records, that teach once with all of them and once without one."""
_QUERIES = 20_000
"""Of which noise that is a tenth too little turns noticeably more or fewer."""
_DRAWS = 600
"""Of a generator of torch, which has 624 words of 32 bits in it."""
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

    def division() -> Tensor:
        """What the generator draws that the method is given to divide records by."""
        drawn = []

        def count(_: Samples, draws: torch.Generator) -> Tensor:
            drawn.append(torch.randint(2**31, (_DRAWS,), generator=draws))
            return F.one_hot(torch.zeros(1).long(), classes)

        ClientContext.elected(client, Voting(1, 1), count)
        return drawn[0]

    found = _noise("votes of teachers", voting.event(setting).noise_multiplier, ask)
    prepared.method.client(client, {})
    return [*found, check_source("the division of records", division), client.moved]


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


_MOVED = "votes that one record moves"


class _Voter(ClientContext):
    """A client whose teachers vote with all of its records, without the last, without the first.

    All records but that one have the draws that they had.
    """

    moved: Check

    def elected(self, voting: Voting, count: Count) -> tuple[Tensor, Provenance]:
        """See `ClientContext`."""
        held = len(self._data)
        draws = _draws()
        every = count(self._data, draws)
        each = _taken(draws, most=100 * held) / held
        last, first = _draws(), _draws(round(each))
        less = [
            count(self._data.subset(torch.arange(held - 1)), last),
            count(self._data.subset(torch.arange(1, held)), first),
        ]
        if each < 1 or _taken(last, most=100 * held) != each * (held - 1):
            found = "whom a record teaches is not drawn for each of them alone"
            self.moved = Check(_MOVED, "VIOLATION", found)
        else:
            self.moved = _moved(every, less, voting)
        return every.argmax(dim=1), PostProcessing(of=Unprotected("votes of teachers"))


def _draws(taken: int = 0) -> torch.Generator:
    """The same generator each time, of which so many draws are gone."""
    generator = rng.stream(0, purpose="audit votes")
    torch.randint(2, (taken,), generator=generator)
    return generator


def _taken(generator: torch.Generator, *, most: int) -> int:
    """How many draws are gone of one of `_draws`; 0 too where they are more than `most`."""
    state, fresh = generator.get_state(), _draws()
    for taken in range(most):
        if torch.equal(fresh.get_state(), state):
            return taken
        torch.randint(2, (1,), generator=fresh)
    return 0


def _moved(every: Tensor, less: Sequence[Tensor], voting: Voting) -> Check:
    """Of each query that is paid for at most one vote, so that no two counts move by more."""
    most = max(int((every - each).abs().sum(dim=1).max()) for each in less) / 2
    if not most:
        return Check(_MOVED, "NO POWER", "the records that were left out moved no vote")
    cast = torch.stack([every, *less]).sum(dim=2)
    found = (
        f"at most {most:g} of {voting.voters} on each of {len(every):,} queries; expected at most "
        f"1, on {voting.queries:,}"
    )
    right = most <= 1 and len(every) == voting.queries and bool((cast == voting.voters).all())
    return checked(_MOVED, right, found)


def _noise(what: str, noise_multiplier: float, ask: Callable[[Tensor, int], Tensor]) -> list[Check]:
    """Two classes are apart by one standard deviation of the difference, all others have none.

    They are one vote apart at the least, which little noise seldom turns: of it the source shows in
    more queries.

    Args:
        what: the votes are of.
        noise_multiplier: of the noise, over the sqrt(2) that one vote moves.
        ask: votes (K,), the same on so many queries -> whether class 0 wins each, 1 or 0.
    """
    rows = 500 if noise_multiplier > 1 else 4000  # at a time, for memory
    noise = noise_multiplier * math.sqrt(2)
    apart = max(1, round(math.sqrt(2) * noise))
    fewer = math.ceil(20 * noise)
    votes = torch.cat([torch.zeros(fewer + apart), torch.ones(fewer)]).long()
    expected = 0.5 * math.erfc(-apart / (2 * noise))
    first = sum(int(ask(votes, rows).sum()) for _ in range(_QUERIES // rows))
    return [
        check_share(f"noise on {what}", first, _QUERIES, expected),
        check_source(what, lambda: ask(votes, rows)),
    ]
