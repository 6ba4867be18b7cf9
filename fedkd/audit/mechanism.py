"""The noise and the clip alone: what fedkd.privacy.mechanisms adds, and what it lets through."""

import torch
from torch import Tensor

from fedkd.audit.verdicts import CONFIDENCE, Claim, Verdict, independent, judge
from fedkd.privacy import mechanisms
from fedkd.privacy.events import Gaussian, Laplace, Protected
from fedkd.privacy.source import NoiseSource

THREAT = "sees one noisy sum, and knows all records but one"
_LOUD = 1e4
"""A record's norm over the clip, so that a clip that is skipped shows."""


def audit(
    noise_multiplier: float,
    *,
    draws: int,
    delta: float,
    generator: torch.Generator,
    confidence: float = CONFIDENCE,
) -> list[Verdict]:
    """Run the Gaussian and the Laplace mechanism many times, with and without one record.

    Args:
        noise_multiplier: the noise's scale over the sensitivity; finite, > 0.
        draws: how many runs of each, >= 2; each has the record by a fair coin.
        delta: in (0, 1).
        generator: the coins; the noise is the mechanisms' own.
        confidence: in (0, 1), for each mechanism.

    Raises:
        ValueError: a value is outside its range, or the coins all fell on one side.
    """
    included = torch.rand(draws, generator=generator) < 0.5
    loud = torch.tensor([[_LOUD]], dtype=torch.float64)
    record = mechanisms.clipped_sum([loud], 1.0)[0]
    sums = included.double() * record
    source = NoiseSource()
    # Each draw is a release of its own, of one number.
    told, counts = (
        noisy(
            values, sensitivity=1.0, noise_multiplier=noise_multiplier, source=source, release=1.0
        )
        for noisy, values in ((mechanisms.gaussian, sums), (mechanisms.laplace, included.double()))
    )

    def judged(what: str, event: Protected, scores: Tensor) -> Verdict:
        claim = Claim.of([event], delta)
        members, others = scores[included].numpy(), scores[~included].numpy()
        found = independent(members, others, claim, confidence=confidence)
        return judge(what, found, claim=claim, threat=THREAT, canaries=draws, confidence=confidence)

    return [
        judged("Gaussian noise on a clipped sum", Gaussian("sum", noise_multiplier), told),
        judged("Laplace noise on a count", Laplace("count", noise_multiplier), counts),
    ]
