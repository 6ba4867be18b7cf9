"""Replay what a method releases of private data against the exact value, as often as it takes."""

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedkd import rng
from fedkd.auditing.entropy import check_source
from fedkd.auditing.sizes import check_counts, check_gaussian
from fedkd.auditing.verdicts import Check
from fedkd.clock import Clock
from fedkd.data.types import Samples
from fedkd.exchange.messages import Provenance
from fedkd.federation.prepare import PreparedExperiment
from fedkd.jobs.audit.masked import check_masks
from fedkd.jobs.audit.unwritten import Unwritten
from fedkd.jobs.audit.votes import check_combined, check_elections
from fedkd.knowledge.moments import Moments, unpacked
from fedkd.learning.closed_form import Basis, features_of
from fedkd.methods.core.base import ClientContext, ServerContext
from fedkd.methods.core.setting import Count, Setting
from fedkd.methods.core.sums import short_step
from fedkd.models import probes
from fedkd.rows import whole

_TIMES = 500
"""How often a count is released."""
_MOST_COUNTED = 2_000_000
"""Made-up records that are counted, each time anew."""
_NUMBERS = 2000
"""Of which each part of the sums has as many at the least, released again and again."""
_RECORDS = 64
"""Over which sums of features are released."""
_LOWER = 100.0
"""What the clip of gradients is divided by, likewise."""
_LOUD = 1e4
"""What every second of them is multiplied by, so that a clip that is skipped shows."""


def check_releases(prepared: PreparedExperiment) -> list[Check]:
    """Look at each count and sum that a method's card names, or at what the server combines.

    Raises:
        ValueError: nothing is protected.
    """
    if prepared.experiment.privacy.unit != "record":
        return _combined(prepared)
    checks = []
    for what in prepared.method.card.counts:
        checks += _count(prepared.setting, what)
    if (voting := prepared.method.voting(prepared.setting)) is not None:
        checks += check_elections(prepared, voting)
    # A method that has teachers and sends sums cannot run under DP.
    for each in prepared.method.card.sums:
        checks += _sums(prepared) if each == "sums of features" else _gradients(prepared)
    return checks


def _client(setting: Setting, samples: Samples) -> "_Client":
    """A client that has released nothing yet."""
    clock = Clock(lambda *_: None)
    return _Client(setting, 1, 0, samples, {}, clock, allowance=Unwritten())


class _Client(ClientContext):
    """A client of which is known what its sums are of."""

    summed: tuple[nn.Module, Basis | None, float, float]

    def moments(
        self, model: nn.Module, *, basis: Basis | None, intercept: float, balance: float
    ) -> tuple[Moments, Provenance]:
        """See `ClientContext`."""
        self.summed = model, basis, intercept, balance
        return super().moments(model, basis=basis, intercept=intercept, balance=balance)


def _count(setting: Setting, what: Count) -> list[Check]:
    scale = setting.counting(what).noise_multiplier
    # So many of each class that no noise is cut off at the least that may be sent.
    held = math.ceil(40 * scale)
    classes = 1 if what == "example count" else setting.classes
    if classes * held > _MOST_COUNTED:
        found = f"noise of scale {scale:g} shows on {classes * held:,} made-up records, too many"
        return [Check(f"noise on the {what}", "NO POWER", found)]
    y = torch.arange(classes).repeat(held)
    samples = Samples(torch.zeros(len(y), 1), y)
    exact = len(y) if what == "example count" else held

    def noise() -> Tensor:
        client = _client(setting, samples)
        sent = client.example_count() if what == "example count" else client.class_counts()
        return sent.data.double().flatten() - exact

    def several() -> Tensor:
        return torch.stack([noise() for _ in range(50)])

    drawn = torch.stack([noise() for _ in range(_TIMES)]).T
    names = [what] if what == "example count" else [f"class {c}" for c in range(setting.classes)]
    return [
        check_counts(f"noise on the {what}", dict(zip(names, drawn, strict=True)), scale),
        check_source(f"the {what}", several),
    ]


def _sums(prepared: PreparedExperiment) -> list[Check]:
    prepared = _with_loud_records(prepared)

    def noise() -> dict[str, Tensor]:
        return _noise_on_sums(prepared)

    drawn = [noise()]
    few = min(part.numel() for part in drawn[0].values())
    drawn += [noise() for _ in range(min(_TIMES, _NUMBERS // few))]
    parts = {name: torch.cat([each[name] for each in drawn]) for name in drawn[0]}
    shared = ", a client's share of the noise" if prepared.setting.securely else ""
    return [
        check_gaussian("clip, sensitivity and noise of the sums of features", parts, shared),
        check_source("the sums of features", lambda: torch.cat(list(noise().values()))),
    ]


def _with_loud_records(prepared: PreparedExperiment) -> PreparedExperiment:
    """The experiment with a client of a few records, of which at least half are far above the clip.

    Every second input is far too large; where the model takes no such inputs, as an embedding does
    not, the clip is as much lower in their place.
    """
    few = _few(prepared)
    factors = torch.ones(len(few)).double()
    factors[::2] = _LOUD
    inputs = whole(few.x)
    x = inputs * factors.to(inputs.dtype).view(-1, *[1] * (inputs.dim() - 1))
    model = prepared.setting.build(prepared.experiment.student.model, purpose="specification")
    if probes.takes(model, x):
        return replace(prepared, data=replace(prepared.data, clients=(Samples(x, few.y),)))
    privacy = prepared.experiment.privacy
    lower = privacy.model_copy(update={"clip": privacy.clip / _LOUD})
    experiment = prepared.experiment.model_copy(update={"privacy": lower})
    return replace(
        prepared,
        experiment=experiment,
        setting=replace(prepared.setting, experiment=experiment),
        data=replace(prepared.data, clients=(few,)),
    )


def _noise_on_sums(prepared: PreparedExperiment) -> dict[str, Tensor]:
    """What is released less what is exact, over the noise that is claimed; by part."""
    setting, samples = prepared.setting, prepared.data.clients[0]
    client = _client(setting, samples)
    upload = prepared.method.client(client, dict(prepared.method.begin(_server(prepared)).common))
    packed, labels = (upload.values[name].data.double() for name in ("features", "labels"))
    model, basis, intercept, balance = client.summed
    exact = _exact(model, samples, basis, prepared.experiment.privacy.clip, intercept)
    exact_labels = exact.T @ F.one_hot(samples.y, setting.classes).double()
    bound = math.hypot(prepared.experiment.privacy.clip, intercept)
    # One record of norm `bound` moves sum phi phi^T by bound^2 and sum phi y^T by bound.
    noise = setting.summing("sums of features").noise_multiplier * setting.noise_share
    scale = noise * bound**2 * math.sqrt(1 + balance**2)
    features = unpacked(packed, labels).features - exact.T @ exact
    rows, columns = torch.triu_indices(len(features), len(features), offset=1)
    return {
        "the diagonal": features.diagonal() / scale,
        # An entry of the triangle stands for two, and may have as much less noise.
        "the triangle": math.sqrt(2) * features[rows, columns] / scale,
        "the sums with labels": (balance * bound * (labels - exact_labels) / scale).flatten(),
    }


def _gradients(prepared: PreparedExperiment) -> list[Check]:
    """The first step's sum, with a clip so low that all records are above it."""
    privacy = prepared.experiment.privacy
    lower = privacy.model_copy(update={"clip": privacy.clip / _LOWER})
    experiment = prepared.experiment.model_copy(update={"privacy": lower})
    prepared = replace(
        prepared,
        experiment=experiment,
        setting=replace(prepared.setting, experiment=experiment),
    )

    def noise() -> Tensor:
        return _noise_on_gradients(prepared)

    drawn = [noise()]
    drawn += [noise() for _ in range(min(_TIMES, _NUMBERS // drawn[0].numel()))]
    shared = ", a client's share of the noise" if prepared.setting.securely else ""
    checks = [
        check_gaussian("clip and noise of the sum of gradients", {"": torch.cat(drawn)}, shared),
        check_source("the sum of gradients", noise),
    ]
    if prepared.setting.securely:
        told = prepared.method.begin(_server(prepared)).common
        checks.append(check_masks(prepared, told, _few(prepared)))
    return checks


def _few(prepared: PreparedExperiment) -> Samples:
    """Some records of the first client that has any."""
    held = next((each for each in prepared.data.clients if len(each)), prepared.data.test)
    return held.subset(torch.arange(min(_RECORDS, len(held))))


def _noise_on_gradients(prepared: PreparedExperiment) -> Tensor:
    """What is released in the first round less what is exact, over the noise that is claimed."""
    setting, told = prepared.setting, prepared.method.begin(_server(prepared)).common
    few = _few(prepared)
    upload = prepared.method.client(_client(setting, few), dict(told))
    model = setting.build(prepared.experiment.student.model, purpose="student")
    constant = prepared.experiment.method.parameters["intercept"]
    phi = F.pad(features_of(model, few.x).double(), (0, 1), value=float(str(constant)))
    wrong = (phi @ told["weights"].double()).softmax(dim=1) - F.one_hot(few.y, setting.classes)
    clip = prepared.experiment.privacy.clip
    rows = torch.einsum("nf,nc->nfc", phi, wrong).flatten(1)
    exact = (rows * (clip / rows.norm(dim=1, keepdim=True)).clamp(max=1)).sum(dim=0)
    noise = setting.summing("sum of gradients").noise_multiplier * setting.noise_share
    sent = upload.values["gradient"].data
    step = short_step(setting) if sent.dtype == torch.int16 else 1.0
    found: Tensor = (step * sent.double().flatten() - exact) / (noise * clip)
    return found


def _exact(
    model: nn.Module, samples: Samples, basis: Basis | None, clip: float, intercept: float
) -> Tensor:
    """The clipped features and the intercept of each record, (N, D)."""
    phi = features_of(model, samples.x).double()
    if basis is not None:
        phi = (phi - basis.mean) @ basis.axes
    phi = phi * (clip / phi.norm(dim=1, keepdim=True)).clamp(max=1)
    return F.pad(phi, (0, 1), value=intercept)


def _server(prepared: PreparedExperiment) -> ServerContext:
    student = prepared.setting.student.build(prepared.experiment.student.model, purpose="student")
    return ServerContext(
        setting=prepared.setting,
        round=1,
        student=student,
        state={},
        clock=Clock(lambda *_: None),
        threads=1,
        test=prepared.data.test,
        pooled=prepared.data.pooled,
        allowance=Unwritten(),
    )


def _combined(prepared: PreparedExperiment) -> list[Check]:
    """Under the client units: what the server adds to votes, or to a sum of probabilities."""
    classes, draws = prepared.setting.classes, rng.stream(0, purpose="audit answers")
    server, what = _server(prepared), prepared.setting.combining(1).what
    if what == "votes":
        return check_combined(server)
    rows, clients = 200, 4
    answers = torch.rand(clients, rows, classes, generator=draws).softmax(dim=2)
    # What is not a probability counts as none, and what is too long is cut to length 1.
    answers[0] = 10 * answers[0]
    answers[1, :, 0] = -5.0
    scale = prepared.setting.combining(rows).noise_multiplier * math.sqrt(2 * rows)
    kept = answers.clamp(min=0).double()
    kept = kept / kept.norm(dim=2, keepdim=True).clamp(min=1)

    def noise() -> Tensor:
        released = clients * server.protect(answers)[0].double()
        drawn: Tensor = (released - kept.sum(dim=0)) / scale
        return drawn

    return [
        check_gaussian("clip and noise of the mean of probabilities", {"all rows": noise()}),
        check_source("the mean of probabilities", noise),
    ]
