"""What no statistic on canaries can see, found by looking at how the training goes about it.

Each check calls `private.train` with a loss that watches, and says what it expected and found. One
that goes by chance accuses a correct training with one in ten million.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from fedkd.auditing.entropy import check_source
from fedkd.auditing.sizes import CHANCE, check_gaussian, unlikely
from fedkd.auditing.verdicts import Check, checked
from fedkd.auditing.watch import ONCE, Watch, small
from fedkd.config import Optimisation
from fedkd.learning.dp import sgd
from fedkd.learning.dp.sgd import Noise
from fedkd.privacy.events import Gaussian

_STEPS = 300
"""Steps that are watched for who takes part."""
_SPREAD = (0.5, 2.0)
"""Shuffled batches spread 0 times as much as independent draws; these stay within, as the rest."""
_QUIET = 1e-9
"""A noise multiplier next to none."""
_LOUD = 1e4
"""A record's loss over the clip, so that its gradient is far above it."""
_ROUNDING = 2.0**-9
"""By how much more than the clip a record may move a sum, as a share of it; it is paid for."""
_LEAST = 0.9
"""Of the clip, which a loud record alone moves a sum by: less, and the looks do not see the sum."""
_SAME = 1 - 1e-12
"""A correlation of what is the same, but for rounding."""
_TWICE = ONCE.model_copy(update={"epochs": 2})


def check_training(noise: Noise, optimisation: Optimisation, event: Gaussian) -> list[Check]:
    """Look at DP-SGD as configured, on made-up records and small models.

    Args:
        noise: how each step is protected.
        optimisation: as teachers are trained.
        event: what one training is accounted as.
    """
    whole = Watch(noise, optimisation, model=small())
    return [
        _steps(whole, noise, event),
        _sampling(noise, optimisation),
        *_clip(noise),
        _noise_size("noise after the clip, once a step", whole, noise),
        _noise_anew(noise),
        _source(noise),
    ]


def check_noise_of(what: str, model: nn.Module, x: Tensor, noise: Noise) -> Check:
    """Each parameter of a model gets noise of its size, in each step.

    Args:
        what: the model's name.
        model: trained in place, for two steps.
        x: public inputs that it takes (N, *shape), N >= 1, of which two are used.
        noise: how each step is protected.
    """
    every = replace(noise, sample_rate=1.0)
    watch = Watch(every, _TWICE, model=model, x=x[:2], like=x)
    return _noise_size(f"noise on each parameter of {what}", watch, every)


def _steps(watch: Watch, noise: Noise, event: Gaussian) -> Check:
    done = len(watch.gradients)
    right = done == event.steps and (event.noise_multiplier, event.sample_rate) == (
        noise.noise_multiplier,
        noise.sample_rate,
    )
    return checked(
        "all steps are accounted",
        right,
        f"{done} steps at noise {noise.noise_multiplier:.4g} and rate {noise.sample_rate:g}, "
        f"accounted as {event.steps} at {event.noise_multiplier:.4g} and {event.sample_rate:g}",
    )


def _sampling(noise: Noise, optimisation: Optimisation) -> Check:
    """Each step takes each record on its own, and no seed repeats who is taken."""
    rate = noise.sample_rate
    epochs = math.ceil(_STEPS / sgd.steps(1, rate))
    longer = optimisation.model_copy(update={"epochs": epochs})
    took, again = (Watch(noise, longer).attendance.double() for _ in range(2))
    if rate == 1:
        found = "rate 1: every step takes each record"
        return checked("Poisson sampling", bool(took.all()), found)
    steps, rows = took.shape
    variance = rate * (1 - rate)
    sizes = float(((took.sum(dim=1) - rows * rate) ** 2).mean()) / (rows * variance)
    turns = float(((took.sum(dim=0) - steps * rate) ** 2).mean()) / (steps * variance)
    low, high = _SPREAD
    right = low < sizes < high and low < turns < high and not torch.equal(took, again)
    return checked(
        "Poisson sampling",
        right,
        f"in {steps} steps at rate {rate:g} batch sizes vary {sizes:.2f} times and the records' "
        f"turns {turns:.2f} times as much as independent draws do (expected {low:g} to {high:g})"
        + (", and one seed repeats them" if torch.equal(took, again) else ""),
    )


def _clip(noise: Noise) -> list[Check]:
    """One more record moves the sum by at most the clip, whatever stands beside it.

    A clip after the sum shows where two records pull against each other: the sum of one that is too
    loud and of a louder one against it then turns round, by twice the clip.
    """
    cases: dict[str, tuple[float, ...]] = {
        "alone": (_LOUD,),
        "beside one that pulls the same way": (_LOUD, 2 * _LOUD),
        "beside one that pulls against it": (_LOUD, -2 * _LOUD),
    }
    found = []
    for case, pulls in cases.items():
        moved = float((_sum(noise, pulls) - _sum(noise, pulls[:-1])).norm())
        check = checked(
            f"clipping of a record {case}",
            moved <= noise.clip * (1 + _ROUNDING),
            f"one record ten thousand times too loud moves the sum by {moved:.4g}, of "
            f"{noise.clip:g} allowed",
        )
        if case == "alone" and moved < _LEAST * noise.clip:
            check = replace(check, outcome="UNEXPLAINED")
        found.append(check)
    return found


def _sum(noise: Noise, pulls: Sequence[float]) -> Tensor:
    """The clipped sum over records whose losses pull so strongly, next to without noise."""
    strengths = noise.clip * torch.tensor(pulls)

    def loud(outputs: Tensor, y: Tensor) -> Tensor:
        return strengths[y] * outputs.sum(dim=1)

    quiet = replace(noise, noise_multiplier=_QUIET, sample_rate=1.0, batch_size=1)
    return Watch(quiet, rows=len(pulls), loss=loud).step(0).double()


def _noise_size(what: str, watch: Watch, noise: Noise) -> Check:
    """With records that have no gradient, what is released is noise, drawn once and of its size."""
    scale = noise.noise_multiplier * noise.clip / noise.batch_size
    return check_gaussian(what, watch.parts(scale))


def _noise_anew(noise: Noise) -> Check:
    """Neither another parameter, nor the next step, nor the next round repeats the noise."""
    whole = replace(noise, sample_rate=1.0, batch_size=1)
    first, second = (Watch(whole, _TWICE, model=small(), rows=2) for _ in range(2))
    weights = [part for part in first.gradients[0].values() if part.numel() > 100]
    shared = min(part.numel() for part in weights)
    pairs = {
        "one step and the next": (first.step(0), first.step(1)),
        "two rounds": (first.step(0), second.step(0)),
        "two parameters": (weights[0][:shared], weights[1][:shared]),
    }
    return anew("noise drawn anew, from no seed", pairs)


def anew(what: str, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> Check:
    """No two draws of noise, each of one size (N >= 4,), correlate."""
    alike = {name: _correlation(*pair) for name, pair in pairs.items()}
    chances = {
        # Fisher's transformation, which makes a correlation nearly normal
        name: 2 * float(stats.norm.sf(abs(math.atanh(r)) * math.sqrt(pairs[name][0].numel() - 3)))
        for name, r in alike.items()
    }
    worst = min(chances, key=chances.__getitem__)
    return checked(
        what,
        not unlikely(list(chances.values())),
        f"the noise of {worst} correlates by {alike[worst]:.2f} (0 expected)",
    )


def unlike(what: str, rows: Tensor, name: str) -> Check:
    """No two of many draws of noise correlate, whichever two.

    Args:
        what: was looked at.
        rows: (R, N), R >= 2, N >= 3: one draw of so many numbers each.
        name: of one of them, which are counted from 1.
    """
    count, numbers = rows.shape
    centred = rows.double() - rows.double().mean(dim=1, keepdim=True)
    unit = F.normalize(centred, dim=1)
    alike = (unit @ unit.T).triu(diagonal=1)
    first, second = divmod(int(alike.abs().argmax()), count)
    found = float(alike[first, second])
    pairs = count * (count - 1) / 2
    # Of independent Gaussians r sqrt((N - 2) / (1 - r^2)) has Student's distribution.
    chance, least = (
        2 * float(stats.t.sf(r * math.sqrt((numbers - 2) / (1 - r**2)), numbers - 2))
        for r in (min(abs(found), _SAME), _SAME)
    )
    if pairs * least >= CHANCE:
        return Check(what, "NO POWER", f"{numbers} numbers of each {name} are too few to compare")
    return checked(
        what,
        pairs * chance >= CHANCE,
        f"of {count:,}, {name} {first + 1} and {name} {second + 1} correlate most, by {found:.2f} "
        "(0 expected)",
    )


def _source(noise: Noise) -> Check:
    whole = replace(noise, sample_rate=1.0, batch_size=1)
    return check_source("gradients", lambda: Watch(whole, rows=2).step(0))


def check_messages(receipts: Sequence[tuple[str, str]], recorded: Sequence[str]) -> Check:
    """No field that left may be unpaid, and none may have left without a receipt.

    Args:
        receipts: (field, provenance) of what the clients' release gates let out.
        recorded: names of the fields in the messages that the server received.
    """
    fields, known = (
        {name.split("/")[0] for name in names}
        for names in (recorded, [field for field, _ in receipts])
    )
    unpaid = {field for field, origin in receipts if origin.endswith("no DP")}
    names = ", ".join(sorted(unpaid | (fields - known)))
    fault = f"field {names} left and nobody paid for it"
    found = f"{len(recorded)} fields in the recorded messages, each paid for"
    return checked("recorded messages", not names, fault if names else found)


def _correlation(one: Tensor, other: Tensor) -> float:
    found = float(torch.corrcoef(torch.stack([one, other]).double())[0, 1])
    return max(-_SAME, min(found, _SAME)) if math.isfinite(found) else _SAME
