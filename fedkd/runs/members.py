"""What `fedkd compare --audit` adds to a run's folder."""

from fedkd.runs.scores import RunPart

MEMBERS = "members.json"


class Members(RunPart):
    """`members.json`: how well LiRA tells members from others: areas under its curve, in [0, 1]."""

    sent: float | None
    """By what clients sent; None where no attack reads it."""
    student: float
    """By the released student."""
