"""Who answered when in an asynchronous run, as `rounds.jsonl` has it."""

from fedkd.runs.scores import RunPart


class LoggedAnswer(RunPart):
    """A client's answer, or that there was none."""

    client: int
    round: int
    """The round that it was asked for."""
    staleness: int
    """Steps that the server had made since the broadcast that it is to."""
    outcome: str
    """One of `federation.asynchronous.log.Outcome`."""


class LoggedMoment(RunPart):
    """Answers that came together."""

    time: float | None
    """Seconds since the run began, virtual ones in a simulation; None where they would tell how
    many protected records a client has."""
    answers: tuple[LoggedAnswer, ...]


class KeptAnswer(RunPart):
    """An earlier answer that counted in a step, since its client had no newer one."""

    client: int
    staleness: int


class Asynchrony(RunPart):
    """What a step was made of, and when."""

    time: float | None
    moments: tuple[LoggedMoment, ...]
    kept: tuple[KeptAnswer, ...]
