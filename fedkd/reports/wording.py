"""Numbers and facts of a run in words: what the report says around its charts."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from fedkd.config import Data, Dirichlet, Experiment, Shards
from fedkd.runs.schema import FinishedRun, PrivacySummary

_MOST_PROTECTIVE = 20.0
"""Epsilon beyond which nothing is called protected: odds change by a factor of 500 million."""
_SMALL = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve",
)  # fmt: skip


def number(value: int) -> str:
    """`value` as a word up to twelve, in digits above: `three`, `1,203`."""
    return _SMALL[value] if 0 <= value < len(_SMALL) else f"{value:,}"


def plural(value: int, noun: str) -> str:
    """`one round`, `five classes`, `20 rounds`."""
    many = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number(value)} {noun if value == 1 else many}"


def percent(share: float) -> str:
    """A share in [0, 1] as `83.1%`."""
    return f"{100 * share:.1f}%"


def points(difference: float) -> str:
    """A difference of two shares in percentage points, with its sign: `+5.2 points`."""
    value = round(100 * difference, 1)
    sign = "±" if value == 0 else "+" if value > 0 else "−"
    return f"{sign}{abs(value):.1f} {'point' if abs(value) == 1 else 'points'}"


def size(count: float) -> str:
    """Bytes in decimal units: `512 B`, `40.1 kB`, `1.20 GB`."""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.5:
            return f"{count:.{2 if count < 9.995 else 1 if count < 99.95 else 0}f} {unit}"
    return f"{count / 1000:,.1f} TB"


def duration(seconds: float) -> str:
    """Seconds as `0.42 s`, `41.0 s`, `4 min 12 s` or `2 h 05 min`."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 99.5:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def listing(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`; beyond five names, the first four and how many more."""
    if len(names) > 5:
        names = [*names[:4], f"{len(names) - 4} more"]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def capped(client: int, claimed: float, weighed: float) -> str:
    """That a client weighed less than it claimed, as shares of those that it is weighed among.

    Louder where it outweighs all others together still, as the default bound lets it.
    """
    text = f"client {client} claimed {percent(claimed)} of the weight and has {percent(weighed)}"
    if weighed <= 0.5:
        return text
    return f"{text}, more than all others together: set clients.max_weight to 0.5 or less"


FAR = 3
"""How far from the rest, over the median client's distance, is worth a word."""

OFTEN = 0.25
"""On what share of inputs not to be heard, for calling one class too often, is worth a word."""


def screened(found: Mapping[str, Any] | None) -> list[str]:
    """Who was not heard in a round, and whose model was moved, of what a record says of it."""
    if found is None:
        return []
    said = []
    if out := found["left_out"]:
        said.append(f"not heard, as unlike the rest: {clients(out)}")
    if moved := [int(client) for client in found["drawn_nearer"]]:
        said.append(f"drawn nearer to the rest: {clients(moved)}")
    if often := [int(c) for c, share in found.get("unheard", {}).items() if share > OFTEN]:
        said.append(f"not heard on many inputs, for calling one class too often: {clients(often)}")
    if far := [int(client) for client, away in found.get("apart", {}).items() if away > FAR]:
        said.append(f"more than {FAR} times as far from the rest as most: {clients(far)}")
    return said


def clients(numbers: Sequence[int]) -> str:
    """`client 3`, or `clients 1, 2 and 3`."""
    return f"client{'s' if len(numbers) > 1 else ''} {listing([str(each) for each in numbers])}"


def shorten(text: str, limit: int) -> str:
    """`text` with at most `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def partition(data: Data) -> str:
    """How the training set was split, as in `dirichlet, alpha 0.3`."""
    rule = data.partition
    if isinstance(rule, Dirichlet):
        return f"{rule.scheme}, alpha {rule.alpha:g}"
    if isinstance(rule, Shards):
        return f"shards, {rule.per_client} per client"
    return "IID" if rule.scheme == "iid" else "the split that the data brings"


def dataset(name: str) -> str:
    """A data set's name, or the last part of its path."""
    return os.path.basename(name) or name  # noqa: PTH119 - of a path written on any machine


def headline(run: FinishedRun) -> str:
    """What was run, in one sentence."""
    summary, experiment = run.summary, run.experiment
    models = len({str(experiment.client_model(i)) for i in range(summary.clients)})
    architectures = (
        "one architecture" if models == 1 else f"{number(models)} different architectures"
    )
    rounds = "a single round" if summary.rounds == 1 else plural(summary.rounds, "round")
    share = f"a private share of {dataset(summary.dataset)} ({partition(experiment.data)})"
    if run.deployed:
        share = f"its own data, apart from the others, for {dataset(summary.dataset)}"
    sentence = (
        f"{plural(summary.clients, 'client')} with {architectures}, each holding {share}, taught "
        f"one {summary.student.model} student by {summary.method} over {rounds}."
    )
    return sentence[0].upper() + sentence[1:] + _privileged(experiment)


def measured(run: FinishedRun) -> str:
    """What was scored, where that is not everybody on all test records after every round."""
    said, rounds, scored = [], len(run.rounds), len(run.scored)
    if scored < rounds:
        said.append(f"The student was scored after {number(scored)} of {number(rounds)} rounds.")
    if parts := [each.student for each in run.scored if each.student.records]:
        said.append(
            f"After {plural(len(parts), 'round')} scores are of {parts[0].records:,} of the "
            f"{parts[0].of:,} test records, the same each time; after all others they are of all."
        )
    with_teachers = [each for each in run.rounds if each.teachers is not None]
    how = run.experiment.output.evaluate
    if how is not None and how.clients == "none":
        said.append("Clients’ teachers were not scored.")
    elif with_teachers and len(with_teachers) < rounds:
        after = "the last round" if len(with_teachers) == 1 else plural(len(with_teachers), "round")
        said.append(f"Clients’ teachers were scored after {after} alone.")
    if how is not None and isinstance(how.clients, int):
        some = "one was" if how.clients == 1 else f"{number(how.clients)} were"
        said.append(f"Of a round’s clients {some} scored, drawn each time.")
    return " ".join(said)


def _privileged(experiment: Experiment) -> str:
    """Who sees what, as a sentence more; nothing where all see the same."""
    privileged = experiment.clients.privileged
    if not experiment.unlike_views:
        return ""
    if privileged is None:
        seen = dict.fromkeys(" and ".join(each) or "all" for each in experiment.clients.views)
        own = " and ".join(experiment.student.views) or "all"
        return f" Of a record the teachers saw {', '.join(seen) or 'all'}; the student {own}."
    return f" The teachers alone saw {', '.join(privileged.columns)}; the student never did."


def privacy(run: FinishedRun) -> str:
    """What was protected and what was not, in words; the page sets `stamp` before it."""
    summary = run.summary.privacy
    if summary.unit != "none":
        trained = any("teacher training" in each.provenance for each in run.summary.released)
        summed = summary.unit == "record" and run.summary.teachers is None and not trained
        how = _SECURELY if summary.secure_aggregation else _SUMMED
        return f"{how if summed else _PROTECTED[summary.unit]} {_spent(summary)}"
    hidden = (
        " Secure aggregation hid each client’s own part from the server, which saw their sum."
        if summary.secure_aggregation
        else ""
    )
    return (
        "No differential privacy. What left each client is not protected by noise: whoever "
        f"receives the {size(run.summary.bytes.up)} that the clients sent may learn about single "
        f"training samples. That the raw data stayed with the clients is no guarantee.{hidden}"
    )


def stamp(summary: PrivacySummary) -> str:
    """Privacy in two or three words: `NO DP`, or `epsilon 7.98`."""
    if summary.unit == "none" or summary.epsilon is None:
        return "NO DP"
    return f"epsilon {summary.epsilon:.4g}"


def cost(summary: PrivacySummary) -> str:
    """What privacy cost, in one line for a table."""
    if summary.unit == "none" or summary.epsilon is None:
        return "NO DP: nothing that left a client is protected"
    together = ", of the clients’ sum" if summary.secure_aggregation else ""
    signal = (
        ""
        if summary.signal_to_noise is None
        else f", signal to noise {summary.signal_to_noise:.3g}"
    )
    return (
        f"epsilon {summary.epsilon:.4g} of {summary.budget:g} at delta {summary.delta:g} "
        f"({summary.unit}, {summary.adjacency}, {summary.accountant}{together}){signal}"
    )


_PROTECTED = {
    "record": (
        "Each client’s teacher learnt by DP-SGD. Whatever the clients sent, and all that was made "
        "of it, hides whether any one record was among a client’s training data."
    ),
    "client-votes": (
        "The server counted the clients’ votes and added noise to the counts. The student hides "
        "how any one client voted. The server itself sees every vote and must be trusted."
    ),
    "client-logits": (
        "The server averaged the clients’ probabilities and added noise to the mean. The student "
        "hides whether any one client took part. The server itself sees every answer and must be "
        "trusted."
    ),
}

_SUMMED = (
    "No model was trained on a client’s data: each client added noise to what it sent. That, and "
    "all that was made of it, hides whether any one record was among a client’s data."
)

_SECURELY = (
    "No model was trained on a client’s data: each client added a share of the noise to what it "
    "sent, under masks that leave the sum of all clients alone to be read. That sum, and all that "
    "was made of it, hides whether any one record was among a client’s data. It holds against the "
    "server too, whatever it does, while few clients work with it and none is of its making; of "
    "clients that tell it their noise, each takes its share of the protection away."
)


def _spent(summary: PrivacySummary) -> str:
    if summary.epsilon is None:
        return "Nothing was spent."
    return (
        f"Spent: epsilon {summary.epsilon:.4g} at delta {summary.delta:g} ({summary.adjacency}, by "
        f"{summary.accountant}), the largest over all who spend, of a budget of "
        f"{summary.budget:g}: the odds of any conclusion change by a factor of at most "
        f"{_factor(summary.epsilon)}, but for a chance of delta. It "
        "covers no other release of the same data: not the choice of settings by looking at the "
        "private data, nor what a client publishes elsewhere."
    )


def _factor(epsilon: float) -> str:
    """E to epsilon in words; beyond a million it is no protection that anybody could notice."""
    if epsilon > math.log(1e6):
        return "more than a million, which is next to no protection"
    return f"{math.exp(epsilon):,.0f}" if epsilon > math.log(10) else f"{math.exp(epsilon):.2g}"


def protects(summary: PrivacySummary) -> bool:
    """Whether a page may show a run as protected."""
    return summary.epsilon is not None and summary.epsilon <= _MOST_PROTECTIVE
