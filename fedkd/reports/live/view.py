"""A run as it stands now, in words and figures: what the page that follows it shows.

All words and numbers are made here, as plain text, which the page puts into place as text and never
as markup: names and reasons may come from hostile clients.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fedkd.reports import figures, wording
from fedkd.reports.live.following import RoundOver, RunNow
from fedkd.reports.live.standing import ServerNow, Standing, standing

_LISTED = 50
"""Rounds and failures that are listed, the latest."""
_LATEST = 5
"""Rounds that the expected end is reckoned from."""


def nothing_yet(folder: Path, how: Standing) -> dict[str, Any]:
    """What is shown where there is no run to show, as JSON values."""
    return {"title": folder.resolve().name, "folder": str(folder), "run": None, **_said(how)}


def view(folder: Path, now: RunNow, server: ServerNow | None = None) -> dict[str, Any]:
    """What is shown of a run, as JSON values.

    Args:
        folder: the run folder.
        now: what it holds.
        server: the deployment's server, where it is known.
    """
    experiment, how = now.experiment, standing(now, server)
    goes_on = how.state in ("running", "stopping")
    return {
        "title": f"{experiment.name}: {experiment.method.name}, seed {experiment.seed}",
        "folder": str(folder),
        "run": {
            "kind": "deployment" if now.deployed else "simulation",
            "done": len(now.rounds),
            "rounds": experiment.rounds,
            "tiles": [_student(now), _privacy(now), *_costs(now.rounds)],
            "epsilon": _epsilon(now),
            "end": _expected_end(now) if how.state == "running" else None,
            "score": _score(now),
            "server": _server(now, server) if goes_on else "",
            "clients": _clients(now, server) if goes_on else None,
            "failures": _failures(now),
            "table": [_row(now, each) for each in reversed(now.rounds[-_LISTED:])],
            "report": now.finished and now.report,
            # As text: JavaScript's numbers have 53 bits, and Flower's 64.
            "stop": str(server.run) if server is not None and server.may_stop else None,
        },
        **_said(how),
    }


def _said(how: Standing) -> dict[str, Any]:
    return {"state": how.state, "says": how.says, "since": how.since}


def _tile(label: str, value: str, note: str) -> dict[str, str]:
    return {"label": label, "value": value, "note": note}


def _student(now: RunNow) -> dict[str, str]:
    score, scored = now.score, _scored(now.rounds)
    label = f"student’s {figures.name(score)}"
    if not scored:
        return _tile(label, figures.UNKNOWN, "not scored yet")
    _, last = scored[-1]
    best = max(scored, key=lambda each: each[1] if score.higher else -each[1])
    note = "best so far" if best[1] == last else f"best {figures.figure(score, best[1])}"
    at = "" if best[1] == last else f" after round {best[0]}"
    return _tile(label, figures.figure(score, last), note + at + figures.better(score))


def _scored(rounds: Iterable[RoundOver]) -> list[tuple[int, float]]:
    """The student's scores by round, of rounds that were scored."""
    return [
        (each.round, each.student)
        for each in rounds
        if each.student is not None and not math.isnan(each.student)
    ]


def _privacy(now: RunNow) -> dict[str, str]:
    budget = now.experiment.privacy.epsilon
    if now.experiment.privacy.unit == "none" or budget is None:
        return _tile("privacy", "NO DP", "nothing that leaves a client is protected")
    spent = _spent(now.rounds)
    value = "ε 0" if spent is None else f"ε {spent:.4g}"
    return _tile("privacy spent", value, f"of a budget of {budget:g}")


def _spent(rounds: Sequence[RoundOver]) -> float | None:
    """The largest epsilon so far; None where nothing was spent yet."""
    return max((each.epsilon for each in rounds if each.epsilon is not None), default=None)


def _epsilon(now: RunNow) -> list[float] | None:
    """Spent and budget; None where nothing is protected."""
    budget = now.experiment.privacy.epsilon
    if now.experiment.privacy.unit == "none" or budget is None:
        return None
    return [_spent(now.rounds) or 0.0, budget]


def _costs(rounds: Sequence[RoundOver]) -> list[dict[str, str]]:
    up, down = (wording.size(sum(getattr(r, way) for r in rounds)) for way in ("up", "down"))
    seconds = sum(each.seconds for each in rounds)
    mean = f"{wording.duration(seconds / len(rounds))} a round" if rounds else "no round is over"
    return [
        _tile("sent by clients", up, f"{down} sent to them"),
        _tile("time in rounds", wording.duration(seconds), mean),
    ]


def _expected_end(now: RunNow) -> dict[str, Any] | None:
    """Seconds from the last sign of life until the last round ends; None before one has."""
    left = now.experiment.rounds - len(now.rounds)
    if not now.rounds or not left or now.live is None:
        return None
    latest = now.rounds[-_LATEST:]
    each = sum(over.seconds for over in latest) / len(latest)
    seconds = max(0.0, left * each - now.live.seconds)
    return {
        "at": (now.last_sign or 0.0) + seconds,
        "in": f"{seconds:.0f} s" if seconds < 60 else wording.duration(seconds),
        "by": "by the last round" if len(latest) == 1 else f"by the last {len(latest)} rounds",
    }


def _score(now: RunNow) -> dict[str, Any]:
    """The student's score by round, for a picture, and the same in a sentence."""
    score, scored = now.score, _scored(now.rounds)
    name = figures.title(score) + figures.better(score)
    if not scored:
        return {"name": name, "points": [], "low": None, "high": None, "says": "No score yet."}
    values = [value for _, value in scored]
    low, high = min(values), max(values)
    first, last = (
        f"{figures.figure(score, v)} after round {r}" for r, v in (scored[0], scored[-1])
    )
    says = f"The student’s {figures.name(score)} by round: {first}"
    return {
        "name": name,
        "points": [list(each) for each in scored],
        "low": [low, figures.figure(score, low)],
        "high": [high, figures.figure(score, high)],
        "says": f"{says}." if len(scored) == 1 else f"{says}, {last}.",
    }


def _server(now: RunNow, server: ServerNow | None) -> str:
    """What the server is at."""
    if server is not None and not server.answers:
        return "The server does not answer."
    if now.live is None or not now.live.server:
        return "The server waits for its clients." if now.live and now.live.round else ""
    ahead = now.live.round is not None and now.live.round > len(now.rounds) + 1
    its = f", for round {len(now.rounds) + 1}" if ahead else ""
    return f"The server is at: {now.live.server}{its}."


def _clients(now: RunNow, server: ServerNow | None) -> dict[str, Any] | None:
    """The clients of the round under way by phase; None before any is asked."""
    if now.live is None or now.live.round is None:
        return None
    phases, online = now.live.clients, {} if server is None else server.online

    def listed(phase: str, what: dict[int, str]) -> dict[str, Any]:
        clients = [{"name": name(now, client), "does": said} for client, said in what.items()]
        for each in clients:
            if online.get(each["name"]) is False:
                each["does"] = f"{each['does']}, not connected".removeprefix(", ")
        return {"phase": phase, "count": phases.counts[phase], "clients": clients}  # type: ignore[index]

    return {
        "round": now.live.round,
        "phases": [
            listed("asked", dict.fromkeys(phases.asked, "")),
            listed("training", phases.training),
            listed("answered", dict.fromkeys(phases.answered, "")),
            listed("lost", phases.lost),
        ],
        # Sites, and workers of Ray, do not tell.
        "note": "When clients train is not told here: asked is asked, or training."
        if now.deployed or now.experiment.engine.kind == "ray"
        else "",
    }


def name(now: RunNow, client: int) -> str:
    """A client's name in a deployment, its number in a simulation."""
    known = now.deployed and 0 <= client < len(now.names)
    return now.names[client] if known else f"client {client}"


def _failures(now: RunNow) -> dict[str, Any]:
    """Who was left out of which round, and why: the latest first."""
    found = [
        {"round": each.round, "client": name(now, failure.client), "reason": failure.reason}
        for each in now.rounds
        for failure in each.failures
    ]
    counted = len(found)
    if now.live is not None and now.live.round is not None and now.live.round > len(now.rounds):
        lost = now.live.clients.lost.items()
        found += [
            {"round": now.live.round, "client": name(now, client), "reason": reason}
            for client, reason in lost
        ]
        counted += now.live.clients.counts["lost"]
    return {"count": counted, "latest": found[: -_LISTED - 1 : -1]}


def _row(now: RunNow, each: RoundOver) -> list[str]:
    """A round in a row of the table."""
    score = now.score
    return [
        str(each.round),
        figures.figure(score, each.student),
        figures.figure(score, each.teachers),
        f"{each.answered} of {each.asked}",
        wording.duration(each.seconds),
        wording.size(each.up),
        figures.UNKNOWN if each.epsilon is None else f"{each.epsilon:.4g}",
    ]
