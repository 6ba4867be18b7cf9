"""Whether anything can be learned through noise: arithmetic on public values alone.

Under `record` what is learned is a sum of clipped vectors, and the noise on it is as long as its
standard deviation times the root of its dimensions. Over steps and clients signals add up, and
noises by the root of their number. What is compared is the longest that the signal can be, when all
records pull the same way: a plan that falls short cannot teach, and one that does not still may
fail to.
"""

import math
from dataclasses import dataclass

from fedkd.errors import ConfigError
from fedkd.privacy.budget import Budget

_LEAST_LENGTH = 0.3
"""Below this ratio of the longest signal to the noise's length nothing was learned: of ten classes,
fedkd/configs/private.toml had 10% right at 0.16, 16% at 0.43 and 35% at 1.3."""


@dataclass(frozen=True)
class Signal:
    """How far what is to be learned can stand out of the noise on it."""

    ratio: float
    least: float
    """Below which nothing is learned."""
    what: str
    """The two that `ratio` compares, in words."""
    remedy: str
    """What makes it larger, other than a larger budget."""

    @property
    def hopeless(self) -> bool:
        """Whether nothing can be learned."""
        return self.ratio < self.least

    def loudest(self, noise_multiplier: float) -> float:
        """The most noise through which something can be learned, where this is the signal's own."""
        return noise_multiplier * self.ratio / self.least


def of_steps(noise_multiplier: float, *, records: float, steps: float, numbers: int) -> Signal:
    """Of sums over some records each, `steps` of them, all of so many numbers.

    Args:
        noise_multiplier: the noise's standard deviation over what a record is clipped to.
        records: how many are in a sum; public.
        steps: how many sums there are, those of all clients together.
        numbers: how many each sum has.
    """
    ratio = records * math.sqrt(steps) / (noise_multiplier * math.sqrt(numbers))
    return Signal(
        ratio,
        _LEAST_LENGTH,
        "all records pulling one way over the noise on their sum",
        "have more records in a step (privacy.batch_size says how many), a smaller model or more "
        "clients",
    )


def hopeless(signal: Signal, epsilon: float, allowed: Budget) -> ConfigError:
    """The complaint about a plan in which nothing can be learned.

    Args:
        signal: what falls short.
        epsilon: the least with which it would not.
        allowed: the budget.
    """
    unit = 10.0 ** (math.floor(math.log10(epsilon)) - 1)
    enough = math.ceil(epsilon / unit) * unit  # to two digits, and enough
    return ConfigError(
        f"privacy.epsilon = {allowed.epsilon:g} is hopeless here: {signal.what} is "
        f"{signal.ratio:.2g}, expected at least {signal.least:g}, which takes epsilon "
        f"{enough:.2g} or more; raise it, or {signal.remedy}"
    )
