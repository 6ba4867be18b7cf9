"""A run's figures as tables: lists of flat rows, as `pandas.DataFrame` takes them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedkd.reports.comparison import ComparisonRow, Spread
    from fedkd.runs.distil_schema import DistilRun
    from fedkd.runs.schema import FinishedRun, Round

Row = dict[str, Any]


def of_federation(run: "FinishedRun") -> list[Row]:
    """A row for each round; scores are None after a round that was not scored."""
    names = [score.figure for score in run.summary.numbers]
    return [_round(run, each, names) for each in run.rounds]


def _round(run: "FinishedRun", each: "Round", names: list[str]) -> Row:
    headline = run.summary.headline
    teachers, ensemble, privacy = each.teachers, each.ensemble, each.privacy
    best = None
    if teachers is not None:
        best = headline.best(one.figures[headline.figure] for one in teachers.by_client.values())  # type: ignore[misc]
    return {
        "round": each.round,
        **{name: each.student.figures.get(name) for name in names},
        f"teachers_{headline.mean}": None if teachers is None else teachers.figures[headline.mean],
        f"teachers_{headline.at_best}": best,
        f"ensemble_{headline.figure}": None
        if ensemble is None
        else ensemble.figures[headline.figure],
        "answered": each.answered,
        "failed": len({failure.client for failure in each.failures}),
        "bytes_up": each.bytes.up,
        "bytes_down": each.bytes.down,
        "seconds": each.seconds.total,
        "epsilon": None if privacy is None else privacy.epsilon,
    }


def of_distillation(run: "DistilRun") -> list[Row]:
    """A row for each epoch of each training."""
    return [
        {
            "stage": each.stage,
            "epoch": each.epoch,
            "loss": each.loss,
            **{score.figure: each.figures.get(score.figure) for score in run.summary.scores},
            "seconds": each.seconds,
        }
        for each in run.epochs
    ]


def of_comparison(rows: "list[ComparisonRow]") -> list[Row]:
    """A row for each method, the best first; of each figure its mean and deviation over seeds."""
    exchanged = ("bytes_up", "bytes_down", "seconds", "own", "members_sent", "members_student")
    figures = ("student", "student_best", "teachers", "ensemble", *exchanged)
    return [
        {
            "method": each.method,
            "score": each.score.name,
            "seeds": len(each.seeds),
            **{
                f"{name}{suffix}": value
                for name in figures
                for suffix, value in _spread(getattr(each, name)).items()
            },
            "epsilon": each.epsilon,
        }
        for each in rows
    ]


def _spread(spread: "Spread | None") -> Row:
    return {
        "": None if spread is None else spread.mean,
        "_std": None if spread is None else spread.std,
    }
