"""Tables of a run's rounds and clients."""

from collections.abc import Sequence

from fedkd.reports import figures, wording
from fedkd.reports.grid import Grid, GridColumn, columns
from fedkd.reports.parts import Paragraph, Part
from fedkd.runs.schema import FinishedRun, Personal, Round
from fedkd.runs.scores import Scores, ShownScore

UNLIKE = "Clients that are unlike the rest"


def every_round(run: FinishedRun) -> Grid:
    """Each round's scores, losses, bytes, time and answers."""
    score = run.summary.headline
    losses = list(dict.fromkeys(name for each in run.rounds for name in each.losses))
    rows = [
        (
            f"{each.round}",
            _number(each.student, score, score.figure),
            _number(each.teachers, score, score.mean),
            _number(each.ensemble, score, score.figure),
            *(_loss(each.losses.get(name)) for name in losses),
            wording.size(each.bytes.up),
            wording.size(each.bytes.down),
            wording.duration(each.seconds.total),
            f"{each.answered} of {each.asked}",
        )
        for each in run.rounds
    ]
    names = ("Round", "Student", "Teachers’ mean", "Ensemble", *(f"Loss: {n}" for n in losses),
             "Up", "Down", "Time", "Answers")  # fmt: skip
    return Grid("Every round in figures", tuple(map(GridColumn, names)), tuple(rows), tall=True)


def personal(run: FinishedRun, scores: Personal) -> Grid:
    """Each client's own model, and the student, on the client's own records."""
    numbers = run.summary.numbers
    heads = ["Records"]
    for each in numbers:
        heads += [
            f"Own model: {figures.name(each)}{figures.better(each)}",
            f"Student: {figures.name(each)}",
        ]
    rows = [
        (f"Client {client}", f"{model.rows:,}", *_both(model, model.student, numbers, "figure"))
        for client, model in scores.by_client.items()
    ]
    for name, key in (("Mean over clients", "mean"), ("Mean weighted by records", "weighted")):
        rows.append((name, "", *_both(scores, scores.student, numbers, key)))
    whose = (
        "the student is scored on the same records"
        if scores.student
        else "the student does not come to where these records are"
    )
    note = (
        f"Each client keeps {100 * (run.experiment.clients.test_share or 0):g}% of its records "
        "from training, and scores its own model on them, as the round left it that it last took "
        f"part in; {whose}. These scores left the clients without protection."
    )
    return Grid("On clients’ own held-out records", columns("Client", *heads), tuple(rows), note)


def failures(rounds: Sequence[Round]) -> list[Part]:
    """Whose answers did not arrive, and why."""
    failed = [(each.round, f.client, f.reason) for each in rounds for f in each.failures]
    if not failed:
        return [Paragraph("None: every client that was asked answered in every round.")]
    asked = sum(each.asked for each in rounds)
    heads = (GridColumn("Round"), GridColumn("Client"), GridColumn("Reason", "words"))
    rows = tuple((f"{number}", f"{client}", reason) for number, client, reason in failed)
    return [
        Paragraph(f"{len(failed)} of {asked} answers did not arrive."),
        Grid("Failures by round", heads, rows),
    ]


def screened(rounds: Sequence[Round]) -> list[Part]:
    """Who was far from the rest in some round, the least like first."""
    found = [each.robust for each in rounds if each.robust is not None]
    odd = {client for each in found for client in each.left_out}
    odd |= {int(client) for each in found for client in each.drawn_nearer}
    odd |= {int(c) for each in found for c, away in each.apart.items() if away > wording.FAR}
    odd |= {int(c) for each in found for c, share in each.unheard.items() if share > wording.OFTEN}
    rows = []
    for client in odd:
        key = str(client)
        own = [each.agreement[key] for each in found if key in each.agreement]
        cut = min((each.drawn_nearer[key] for each in found if key in each.drawn_nearer),
                  default=None)  # fmt: skip
        away = max((each.apart[key] for each in found if key in each.apart), default=None)
        unheard = max((each.unheard[key] for each in found if key in each.unheard), default=None)
        out = sum(client in each.left_out for each in found)
        agreement = sum(own) / len(own) if own else None
        rows.append((client, agreement, out, len(own), cut, away, unheard))
    if not rows:
        return []
    rows.sort(key=lambda row: (row[1] or 0.0, -(row[5] or 0.0)))
    cells = [
        (
            f"{client}",
            _or_dash(agreement, "{:.2f}"),
            f"{out} of {compared}",
            _or_dash(cut, "{:.0%}"),
            _or_dash(away, "{:.3g} times"),
            _or_dash(unheard, "{:.0%}"),
        )
        for client, agreement, out, compared, cut, away, unheard in rows
    ]
    heads = ("Client", "Mean agreement", "Rounds not heard", "Distance cut to", "Distance at most",
             "Inputs not heard on, at most")  # fmt: skip
    # The last three are of some rules alone.
    kept = [n for n in range(len(heads)) if n < 3 or any(row[n] != "–" for row in cells)]
    apart = any(row[5] is not None for row in rows)
    return [
        Paragraph(
            "The server compares what clients say of the same inputs, and what models like the "
            "student learned. Whoever does not agree with the rest is not heard in that round; a "
            "model that lies far from all others is drawn nearer; who calls one class far oftener "
            "than the others is heard of it where they find it likeliest. Such a client may be "
            "hostile, broken, or honest with data of its own kind."
        ),
        Grid(
            UNLIKE,
            tuple(GridColumn(heads[n]) for n in kept),
            tuple(tuple(row[n] for n in kept) for row in cells),
            "Distances are from what the rule for answers or models made of all, in those of the "
            "median client."
            if apart
            else "",
        ),
    ]


def _both(
    own: Scores, student: Scores | None, numbers: Sequence[ShownScore], key: str
) -> list[str]:
    """Two cells for each score, the own model's and the student's: its `key`, such as `mean`."""
    return [
        _number(model, each, getattr(each, key)) for each in numbers for model in (own, student)
    ]


def _number(scores: Scores | None, score: ShownScore, key: str) -> str:
    return "–" if scores is None else figures.figure(score, scores.number(key))


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)
