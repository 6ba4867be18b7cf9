"""The noise and the clip alone: what fedkd.privacy.mechanisms adds, and what it lets through."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fedkd.auditing.verdicts import CONFIDENCE, Claim, Verdict, independent, judge, shortfall
from fedkd.privacy import mechanisms
from fedkd.privacy.events import Gaussian, Protected
from fedkd.privacy.source import NoiseSource

THREAT = "sees one noisy sum, and knows all records but one"
_LOUD = 1e4
"""A record's norm over the clip, so that a clip that is skipped shows."""
_IDEAL = 10
"""Times as many draws of the noise that is claimed, to know what should show."""


def audit(
    events: Sequence[Protected],
    *,
    draws: int,
    delta: float,
    generator: torch.Generator,
    confidence: float = CONFIDENCE,
) -> list[Verdict]:
    """Run the mechanism of each event many times, once each, with and without one record.

    Args:
        events: what is claimed; of each the mechanism and the noise multiplier count.
        draws: how many runs of each, >= 2; each has the record by a fair coin.
        delta: in (0, 1).
        generator: the coins; the noise is the mechanisms' own.
        confidence: in (0, 1), for each mechanism.

    Raises:
        ValueError: a value is outside its range, or the coins all fell on one side.
    """
    return [_audit(event, draws, delta, generator, confidence) for event in events]


def _audit(
    event: Protected, draws: int, delta: float, generator: torch.Generator, confidence: float
) -> Verdict:
    included = torch.rand(draws, generator=generator) < 0.5
    gaussian = isinstance(event, Gaussian)
    if isinstance(event, Gaussian):
        event = replace(event, sample_rate=1.0)
        loud = torch.tensor([[_LOUD]], dtype=torch.float64)
        values = included.double() * mechanisms.clipped_sum([loud], 1.0)[0]
    else:
        values = included.double()
    noisy = mechanisms.gaussian if gaussian else mechanisms.laplace
    # Each draw is a release of its own, of one number.
    scores = noisy(
        values,
        sensitivity=1.0,
        noise_multiplier=event.noise_multiplier,
        source=NoiseSource(),
        release=1.0,
    )
    ideal = _ideal(event, _IDEAL * draws, generator)
    claim = Claim.of([replace(event, steps=1)], delta)
    what = f"{'Gaussian' if gaussian else 'Laplace'} noise, as of {event.what}"
    seen = scores[included].numpy(), scores[~included].numpy()
    claimed = ideal[::2].numpy() + 1, ideal[1::2].numpy()
    return judge(
        what,
        independent(*seen, claim, confidence=confidence),
        claim=claim,
        threat=THREAT,
        canaries=draws,
        confidence=confidence,
        shortfall=shortfall(what, seen, claimed),
    )


def _ideal(event: Protected, draws: int, generator: torch.Generator) -> Tensor:
    """Noise that is claimed, for nobody's protection: (draws,)."""
    if isinstance(event, Gaussian):
        unit = torch.randn(draws, dtype=torch.float64, generator=generator)
    else:
        ends = torch.rand(2, draws, dtype=torch.float64, generator=generator)
        unit = (1 - ends[0]).log() - (1 - ends[1]).log()
    return event.noise_multiplier * unit
