"""Canaries through all steps of a method of summed gradients, as a hostile server sees them.

A canary's features are one number of its own, so that its clipped gradient is one row of the last
layer's that no record shares: a Dirac canary, Nasr et al. 2023, arXiv:2302.07956, which the noisy
sum of each step lets through as far as the mechanism does, apart from all others. All else is the
experiment's own: the method's client and server parts, its noise, its form on the wire, its rounds.
"""

from dataclasses import dataclass, field, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedkd import rng
from fedkd.auditing.findings import Audited
from fedkd.auditing.sizes import check_gaussian
from fedkd.auditing.structure import anew
from fedkd.auditing.verdicts import Check, Claim, checked, independent, judge, shortfall
from fedkd.clock import Clock
from fedkd.config import ModelSpec
from fedkd.data.types import Samples
from fedkd.exchange.masking.fixed_point import fixed, floating
from fedkd.exchange.messages import Tensors
from fedkd.federation.prepare import PreparedExperiment
from fedkd.jobs.audit.unwritten import Unwritten
from fedkd.learning.teacher_statistics import feature_width, with_features
from fedkd.methods.core import accounting
from fedkd.methods.core.base import ClientContext, ServerContext
from fedkd.methods.core.setting import Setting
from fedkd.privacy.events import Protected
from fedkd.reports.wording import plural
from fedkd.rows import whole

THREAT = "white box: says at which weights, sees every noisy sum, and may insert records"
_LOUD = 1e4
"""A canary's feature, beside which the constant that all records have is nothing; far above the
clip, so that one that is skipped shows."""
_HIDING = 64
"""Of a client's records, among which the canaries hide: the noise does not know how many."""
_TOGETHER = 1000
"""Canaries of one pass over all steps."""
_IDEAL = 40_000
_FOR_ONE = 10
"""Canaries of the steps for one of a training's: a step costs so little, and noise hides more."""


class MarkedFeatures(nn.Module):
    """A model whose features are a record's, or a canary's one number.

    Inputs are rows (N, D + m): a sample, flattened, and which canary it is, one-hot, or zeros.
    """

    def __init__(self, model: nn.Module, shape: tuple[int, ...], canaries: int, classes: int):
        super().__init__()
        self.model = model
        self.classifier = nn.Linear(feature_width(model) + canaries, classes)
        self._shape, self._canaries = shape, canaries

    def forward(self, rows: Tensor) -> Tensor:
        """(N, D + m) -> (N, C)."""
        marks = rows[:, -self._canaries :]
        # What fills a batch up is zeros, and a canary has no features but its own.
        shown = rows.any(dim=1) & ~marks.any(dim=1)
        features = rows.new_zeros(len(rows), self.classifier.in_features - self._canaries)
        if shown.any():
            x = rows[shown, : -self._canaries].reshape(-1, *self._shape)
            features[shown] = with_features(self.model, x)[1]
        answer: Tensor = self.classifier(torch.cat([features, _LOUD * marks], dim=1))
        return answer


@dataclass(frozen=True)
class _Marked(Setting):
    """A setting whose student sees beside a record which canary it is."""

    canaries: int = 1
    built: dict[str, nn.Module] = field(default_factory=dict, repr=False)
    """The student's model, once for all parties and steps: its features are fixed."""

    def build(self, spec: ModelSpec, *, purpose: str, client: int | None = None) -> nn.Module:
        """See `Setting`."""
        if str(spec) not in self.built:
            plain = super().build(spec, purpose=purpose, client=client)
            marked = MarkedFeatures(plain, self.shape, self.canaries, self.classes)
            self.built[str(spec)] = marked
        return self.built[str(spec)]


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
    """Of each step, where no record is: over the standard deviation that is claimed."""


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
    passes = [_pass(prepared, size, coins) for size in sizes]
    scores = torch.cat([each.scores for each in passes])
    included = torch.cat([each.included for each in passes])
    steps = prepared.experiment.rounds
    claim = Claim.of(passes[0].spent, prepared.experiment.privacy.delta)
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
    return Audited((verdict,), tuple(_checks(prepared, passes[0])))


def _checks(prepared: PreparedExperiment, seen: _Pass) -> list[Check]:
    once = accounting.round_events(prepared.method, prepared.setting)
    planned = once * prepared.experiment.rounds
    noise = {f"step {number}": each for number, each in enumerate(seen.noise, 1)}
    found = [
        checked(
            "steps paid for",
            seen.spent == planned,
            f"{plural(len(seen.spent), 'release')} paid for, of {len(planned)} planned",
        ),
        check_gaussian("noise of each step", noise),
    ]
    pairs = zip(seen.noise, seen.noise[1:], strict=False)
    beside = {f"step {n} and the next": pair for n, pair in enumerate(pairs, 1)}
    return [*found, anew("noise drawn anew in each step", beside)] if beside else found


def _noise(setting: Setting) -> float:
    return setting.summing("sum of gradients").noise_multiplier


def _pass(prepared: PreparedExperiment, count: int, coins: torch.Generator) -> _Pass:
    own = {each.name: getattr(prepared.setting, each.name) for each in fields(Setting) if each.init}
    setting = _Marked(**{**own, "_specs": {}}, canaries=count)
    privacy, constants = setting.experiment.privacy, prepared.experiment.method.parameters
    records, intercept = (float(str(constants[name])) for name in ("records", "intercept"))
    included = torch.rand(count, generator=coins) < 0.5
    labels = torch.arange(count) % setting.classes
    parties = _parties(prepared, setting, included, labels)
    student = setting.build(setting.experiment.student.model, purpose="student")
    rows = slice(feature_width(student) - count, feature_width(student))
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
    scores, noise = torch.zeros(count).double(), []
    for step in range(1, setting.experiment.rounds + 1):
        server.round = step
        uploads = [_sent(prepared, party, told, step) for party in parties]
        wrong = (intercept * told["weights"][-1].double()).softmax(dim=0) - torch.eye(
            setting.classes
        )
        directions = F.normalize(wrong.double(), dim=1)[labels]
        told = dict(prepared.method.server(server, {0: _summed(uploads, setting)}).common)
        # At weights of zero no canary's error is small, and those of one label have the same; from
        # a standstill the velocity is what was released, over the number of records.
        released = records * server.state["velocity"][rows].clone()
        for numbers in (server.state["weights"], server.state["velocity"], told["weights"]):
            numbers[rows] = 0.0
        released /= privacy.clip
        scores += (released * directions).sum(dim=1)
        noise.append((released[~included] / _noise(setting)).flatten())
    return _Pass(scores, included, parties[0].allowance.spent, noise)


def _parties(
    prepared: PreparedExperiment, setting: Setting, included: Tensor, labels: Tensor
) -> list["_Party"]:
    """A client with canaries among its records, and as many others as a secure sum has at least."""
    data = next((each for each in prepared.data.clients if len(each)), prepared.data.test)
    few = data.seen_by(setting.seen).subset(torch.arange(min(_HIDING, len(data))))
    x, chosen = whole(few.x).flatten(1), included.nonzero().flatten()
    rows = torch.zeros(len(x) + len(chosen), x.shape[1] + len(included))
    rows[: len(x), : x.shape[1]] = x
    rows[len(x) + torch.arange(len(chosen)), x.shape[1] + chosen] = 1.0
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
