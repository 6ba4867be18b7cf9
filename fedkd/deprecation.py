"""How a name of the public interface goes: it works for another minor version, and warns."""

import warnings


class FedkdDeprecationWarning(FutureWarning):
    """Something that a later version will not have; shown to everybody, not to developers alone."""


def moved(old: str, new: str, *, what: str = "fedkd.") -> str:
    """The name that another one has now, with a warning at the caller's line.

    Args:
        old: as it was asked for.
        new: as it is called now.
        what: stands in front of both.
    """
    warnings.warn(
        f"{what}{old} is {what}{new} now, and the old name goes with the next minor version",
        FedkdDeprecationWarning,
        stacklevel=3,
    )
    return new
