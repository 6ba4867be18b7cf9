"""Canaries through all steps of a method of summed gradients, as a hostile server sees them.

A canary's features are one number of its own, so that its clipped gradient is one row of the last
layer's that no record shares: a Dirac canary, Nasr et al. 2023, arXiv:2302.07956, which the noisy
sum of each step lets through as far as the mechanism does, apart from all others. All else is the
experiment's own: the method's client and server parts, its noise, its form on the wire, its rounds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedkd import rng
from fedkd.auditing.findings import Audited
from fedkd.auditing.sizes import Pooled, check_centred, check_gaussian, check_pooled, check_shape
from fedkd.auditing.structure import unlike
from fedkd.auditing.verdicts import Check, Claim, checked, independent, judge, shortfall
from fedkd.clock import Clock
from fedkd.data.types import Samples
from fedkd.exchange.masking.fixed_point import fixed, floating
from fedkd.exchange.messages import Tensors
from fedkd.federation.prepare import PreparedExperiment
from fedkd.jobs.audit.marked import LOUD, Marked
from fedkd.jobs.audit.unwritten import Unwritten
from fedkd.learning.closed_form import features_of
from fedkd.learning.teacher_statistics import feature_width
from fedkd.methods.core import accounting
from fedkd.methods.core.base import ClientContext, ServerContext
from fedkd.methods.core.setting import Setting
from fedkd.privacy.events import Protected
from fedkd.reports.wording import plural
from fedkd.rows import whole

THREAT = "white box: says at which weights, sees every noisy sum, and may insert records"
_HIDING = 64
"""Of a client's records, among which the canaries hide: the noise does not know how many."""
_TOGETHER = 1000
"""Canaries of one pass over all steps."""
_IDEAL = 40_000
_FOR_ONE = 10
"""Canaries of the steps for one of a training's: a step costs so little, and noise hides more."""
_COMPARED, _NUMBERS = 2000, 5000
"""Rows of the last layer, and numbers of each step, that are compared with all others."""


_WHO = "records", "canaries"


class _Counted(Unwritten):
    """Allows all, and writes down in memory what is paid for."""

    def __init__(self) -> None:
        self.spent: list[Protected] = []

    def spend(self, event: Protected, **how: str) -> None:
        """See `Allowance`."""
        super().spend(event, **how)
        self.spent.append(event)


class _Party(ClientContext):
    """A client whose allowance is counted."""

    allowance: _Counted


@dataclass(frozen=True)
class _Pass:
    """What one pass over all steps showed."""

    scores: Tensor
    """(m,): along each canary's own gradient, in clips, added up over the steps."""
    included: Tensor
    """(m,), bool."""
    spent: list[Protected]
    noise: list[Tensor]
    """Of each step (F + m + 1, C): its sum less the exact one, over the claimed deviation."""
    size: Pooled
    """Of the same, all together."""
    along: Tensor
    """(T, 2): of each step's noise, along the exact sum of records and along that of canaries."""


def audit_steps(prepared: PreparedExperiment, *, canaries: int, confidence: float) -> Audited:
    """Hold all of an experiment's steps against the claim, and look at the noise of each.

    Args:
        prepared: of a method that sends the sum of gradients, under `record`.
        canaries: ten times as many go through all steps, a thousand at a time, each by a fair coin.
        confidence: in (0, 1).
    """
    coins = rng.stream(prepared.experiment.seed, purpose="audit canaries")
    count = canaries * _FOR_ONE
    sizes = [min(_TOGETHER, count - done) for done in range(0, count, _TOGETHER)]
    first = _pass(prepared, sizes[0], coins)
    # The noise of all passes would take gigabytes.
    passes = [first, *(replace(_pass(prepared, size, coins), noise=[]) for size in sizes[1:])]
    scores = torch.cat([each.scores for each in passes])
    included = torch.cat([each.included for each in passes])
    steps = prepared.experiment.rounds
    claim = Claim.of(first.spent, prepared.experiment.privacy.delta)
    what = f"all steps of {prepared.experiment.method.name}, {plural(steps, 'step')}"
    ideal = torch.randn(_IDEAL, dtype=torch.float64, generator=coins)
    ideal *= _noise(prepared.setting) * steps**0.5
    seen = scores[included].numpy(), scores[~included].numpy()
    claimed = ideal[::2].numpy() + steps, ideal[1::2].numpy()
    verdict = judge(
        what,
        independent(*seen, claim, confidence=confidence),
        claim=claim,
        threat=THREAT,
        canaries=count,
        confidence=confidence,
        shortfall=shortfall(what, seen, claimed),
    )
    return Audited((verdict,), tuple(_checks(prepared, passes)))


def _checks(prepared: PreparedExperiment, passes: Sequence[_Pass]) -> list[Check]:
    once = accounting.round_events(prepared.method, prepared.setting)
    planned, seen = once * prepared.experiment.rounds, passes[0]
    parts = {
        f"the {who} in step {number}": part
        for number, each in enumerate(seen.noise, 1)
        for who, part in zip(_WHO, _apart(each, len(seen.included)), strict=True)
    }
    along = torch.stack([each.along for each in passes]).sum(dim=0) / len(passes) ** 0.5
    pulls = dict(zip(_WHO, along.sum(dim=0) / len(along) ** 0.5, strict=True))
    for number, each in enumerate(along, 1):
        pulls |= {f"{who} in step {number}": z for who, z in zip(_WHO, each, strict=True)}
    found = [
        checked(
            "steps paid for",
            seen.spent == planned,
            f"{plural(len(seen.spent), 'release')} paid for, of {len(planned)} planned",
        ),
        check_gaussian("noise of each step", parts),
        check_pooled("noise of all steps together", [each.size for each in passes]),
        check_shape("shape of the noise", torch.stack(seen.noise)),
        check_centred("sum under the noise", pulls),
        unlike("noise of each feature", torch.cat(seen.noise, dim=1)[-_COMPARED:], "row"),
    ]
    if len(seen.noise) > 1:
        numbers = torch.stack([each.flatten()[-_NUMBERS:] for each in seen.noise])
        found.append(unlike("noise drawn anew in each step", numbers, "step"))
    return found


def _noise(setting: Setting) -> float:
    return setting.summing("sum of gradients").noise_multiplier


def _pass(prepared: PreparedExperiment, count: int, coins: torch.Generator) -> _Pass:
    own = {each.name: getattr(prepared.setting, each.name) for each in fields(Setting) if each.init}
    setting = Marked(**{**own, "_specs": {}}, canaries=count)
    clip = setting.experiment.privacy.clip
    constants = {
        name: float(str(prepared.experiment.method.parameters[name]))
        for name in ("records", "intercept", "momentum")
    }
    included = torch.rand(count, generator=coins) < 0.5
    labels = torch.arange(count) % setting.classes
    parties = _parties(prepared, setting, included, labels)
    student = setting.build(setting.experiment.student.model, purpose="student")
    rows = slice(feature_width(student) - count, feature_width(student))
    held = _Held.of(parties, student, included, constants["intercept"])
    server = ServerContext(
        setting=setting,
        round=1,
        student=student,
        state={},
        clock=Clock(lambda *_: None),
        threads=1,
        test=None,
        pooled=prepared.data.pooled,
        summed=len(parties) if setting.securely else None,
    )
    told = dict(prepared.method.begin(server).common)
    scores, noise, along = torch.zeros(count).double(), [], []
    for step in range(1, setting.experiment.rounds + 1):
        server.round = step
        uploads = [_sent(prepared, party, told, step) for party in parties]
        weights = told["weights"].double()
        wrong = (constants["intercept"] * weights[-1]).softmax(dim=0) - torch.eye(setting.classes)
        directions = F.normalize(wrong.double(), dim=1)[labels]
        before = constants["momentum"] * server.state["velocity"]
        told = dict(prepared.method.server(server, {0: _summed(uploads, setting)}).common)
        # What was released, over the number of records, is what the velocity has grown by.
        released = constants["records"] * (server.state["velocity"] - before) / clip
        # At weights of zero no canary's error is small, and those of one label have the same.
        for numbers in (server.state["weights"], server.state["velocity"], told["weights"]):
            numbers[rows] = 0.0
        scores += (released[rows] * directions).sum(dim=1)
        exact = _exact(held, weights, clip) / clip
        noise.append((released - exact) / _noise(setting))
        pairs = zip(_apart(noise[-1], count), _apart(exact, count), strict=True)
        pulls = [n.flatten() @ F.normalize(way.flatten(), dim=0) for n, way in pairs]
        along.append(torch.stack(pulls))
    size, spent = Pooled.of(noise), parties[0].allowance.spent
    return _Pass(scores, included, spent, noise, size, torch.stack(along))


def _apart(numbers: Tensor, canaries: int) -> tuple[Tensor, Tensor]:
    """Records' rows of the last layer, and the canaries'."""
    first = len(numbers) - 1 - canaries
    return torch.cat([numbers[:first], numbers[-1:]]), numbers[first:-1]


@dataclass(frozen=True)
class _Held:
    """What all parties hold together, of n records and the canaries that are included."""

    phi: Tensor
    """(n, F + 1): records' features and the constant."""
    y: Tensor
    """(n + m,): records' classes, then canaries'."""
    times: Tensor
    """(n, 1): how often a record is held."""
    included: Tensor

    @classmethod
    def of(
        cls, parties: Sequence[_Party], student: nn.Module, included: Tensor, intercept: float
    ) -> "_Held":
        """All but the first party hold one record, which is its first, too."""
        first = parties[0]._data
        count = len(first) - int(included.sum())
        features = features_of(student, first.subset(torch.arange(count)).x).double()
        phi = F.pad(features[:, : -len(included)], (0, 1), value=intercept)
        times = torch.ones(count, 1).double()
        times[0] = len(parties)
        return cls(phi, first.y, times, included)


def _exact(held: _Held, weights: Tensor, clip: float) -> Tensor:
    """The sum that noise is put on, by the audit's own arithmetic, (F + m + 1, C)."""
    own, marked = _apart(weights, len(held.included))
    constant = held.phi[0, -1]
    pulls = torch.cat([held.phi @ own, LOUD * marked[held.included] + constant * own[-1]])
    wrong = pulls.softmax(dim=1) - F.one_hot(held.y, weights.shape[1])
    lengths = F.pad(held.phi.norm(dim=1), (0, len(pulls) - len(held.phi)), value=LOUD)
    clipped = wrong * (clip / (lengths * wrong.norm(dim=1))).clamp(max=1)[:, None]
    records, others = clipped.split([len(held.phi), len(pulls) - len(held.phi)])
    exact = torch.zeros_like(weights)
    exact[: len(own) - 1] = held.phi[:, :-1].T @ (held.times * records)
    exact[len(own) - 1 : -1][held.included] = LOUD * others
    exact[-1] = constant * ((held.times * records).sum(dim=0) + others.sum(dim=0))
    return exact


def _parties(
    prepared: PreparedExperiment, setting: Setting, included: Tensor, labels: Tensor
) -> list["_Party"]:
    """A client with canaries among its records, and as many others as a secure sum has at least.

    Every second of its own records is far above the clip as well.
    """
    data = next((each for each in prepared.data.clients if len(each)), prepared.data.test)
    few = data.seen_by(setting.seen).subset(torch.arange(min(_HIDING, len(data))))
    x, chosen = whole(few.x).flatten(1), included.nonzero().flatten()
    loud = torch.ones(len(x), 1)
    loud[::2] = LOUD
    marks = F.one_hot(chosen, len(included)).float()
    rows = torch.cat(
        [
            torch.cat([x, loud, torch.zeros(len(x), len(included))], dim=1),
            torch.cat([torch.zeros(len(chosen), x.shape[1] + 1), marks], dim=1),
        ]
    )
    samples = Samples(rows, torch.cat([few.y, labels[chosen]]))
    others = setting.quorum(setting.cohort_size) - 1 if setting.securely else 0
    held = [samples, *[samples.subset(torch.arange(1))] * others]
    return [
        _Party(setting, 1, client, each, {}, Clock(lambda *_: None), allowance=_Counted())
        for client, each in enumerate(held)
    ]


def _sent(prepared: PreparedExperiment, party: "_Party", told: Tensors, step: int) -> Tensors:
    party.round = step
    upload = prepared.method.client(party, dict(told))
    return {name: value.data for name, value in upload.values.items()}


def _summed(uploads: list[Tensors], setting: Setting) -> Tensors:
    """What the server is handed of the parties' uploads."""
    if not setting.securely:
        return uploads[0]
    numbers = [fixed(each, parties=setting.cohort_size) for each in uploads]
    stacked = {name: torch.stack([each[name] for each in numbers]) for name in uploads[0]}
    # Whole numbers wrap around as those under masks do.
    return floating({n: each.sum(dim=0, dtype=each.dtype) for n, each in stacked.items()})
