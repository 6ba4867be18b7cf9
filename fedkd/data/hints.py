"""The remedy in an error about a name that does not exist."""

import difflib
from collections.abc import Iterable


def nearest(name: str, valid: Iterable[str]) -> str:
    """`did you mean 'x'? ` if one of `valid` is close to `name`, else nothing."""
    # Case is the commonest slip and the one that difflib weighs most.
    by_lower = {candidate.lower(): candidate for candidate in valid}
    near = difflib.get_close_matches(name.lower(), list(by_lower), n=1)
    return f"did you mean {by_lower[near[0]]!r}? " if near else ""
