"""How a run stands, in a word and a sentence that is true whatever became of its process."""

from dataclasses import dataclass, field
from typing import Literal

from fedkd.reports import wording
from fedkd.reports.live.following import RunNow

State = Literal[
    "waiting", "damaged", "running", "stopping", "ended", "stopped", "failed", "killed", "silent",
    "unknown",
]  # fmt: skip


@dataclass(frozen=True)
class Standing:
    """How a run stands.

    Attributes:
        state: in one word.
        says: in a sentence.
        since: what the sentence ends by, in seconds since 1970; None: by itself.
    """

    state: State
    says: str
    since: float | None = None


@dataclass(frozen=True)
class ServerNow:
    """A deployment's server as it stands.

    Attributes:
        answers: whether it answers at all.
        run: Flower's number of the run; 0 until there is one.
        status: Flower's word for how the run stands; empty where it knows none.
        online: which clients are connected, by name.
        stopping: whether the run was told to stop from the page.
    """

    answers: bool = True
    run: int = 0
    status: str = ""
    online: dict[str, bool] = field(default_factory=dict)
    stopping: bool = False

    @property
    def may_stop(self) -> bool:
        """Whether there is a run to stop."""
        under_way = bool(self.run and self.status) and not self.status.startswith("finished")
        return self.answers and under_way and not self.stopping

    def stopped(self, *, alive: bool | None) -> bool:
        """Whether the run was stopped: its app may call that a failure, or be gone unheard."""
        over = self.status.startswith("finished") or not alive
        return self.status == "finished:stopped" or (self.stopping and over)


def standing(now: RunNow, server: ServerNow | None) -> Standing:
    """How a run stands by what its folder says, and by its server where that is known."""
    so_far = f"after {wording.number(len(now.rounds))} of {_rounds(now.experiment.rounds)}"
    return _ended(now, server, so_far) or _going_on(now, server, so_far)


_RESUME = "What is done is kept, and --resume goes on from it."


def _ended(now: RunNow, server: ServerNow | None, so_far: str) -> Standing | None:
    """How it ended, by its own word or its server's; None: neither says that it has."""
    live, sign = now.live, now.last_sign
    if live is None and now.finished:  # an earlier fedkd's
        return Standing("ended", f"Ended after {_rounds(len(now.rounds))}.")
    if live is None:
        return Standing("unknown", f"Unfinished {so_far}; whether it goes on, it does not say.")
    if live.state == "ended":
        return Standing("ended", f"Ended after {_rounds(len(now.rounds))}.", sign)
    if live.state == "stopped" or (server is not None and server.stopped(alive=now.alive)):
        return Standing("stopped", f"Stopped {so_far}. {_RESUME}", sign)
    if live.state == "failed":
        return Standing("failed", f"Failed {so_far}: {live.why}. {_RESUME}", sign)
    return None


def _going_on(now: RunNow, server: ServerNow | None, so_far: str) -> Standing:
    """How a run stands that has not said how it ended."""
    if server is not None and server.stopping:
        return Standing("stopping", f"Stopping {so_far}.")
    done, of = len(now.rounds), now.experiment.rounds
    if now.alive:
        at = f"round {done + 1} of {of}" if done < of else "all rounds done, writing the report"
        return Standing("running", f"Running: {at}.")
    if now.alive is None:
        why = "Its process may hang, or its machine sleep."
        return Standing("silent", f"No sign of life {so_far}. {why}", now.last_sign)
    how = "Killed, or stopped," if now.deployed else "Killed"
    gone = f"{how} {so_far}: its process is gone and left no word. {_RESUME}"
    return Standing("killed", gone, now.last_sign)


def _rounds(count: int) -> str:
    return wording.plural(count, "round")
