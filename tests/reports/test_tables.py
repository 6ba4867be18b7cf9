import re
from io import StringIO

from rich.console import Console

from fedkd.reports import tables
from fedkd.reports.comparison import ComparisonRow, Spread, further

RUN = {
    "name": "tiny",
    "method": "fedmd",
    "dataset": "odd[red].npz",
    "seed": 0,
    "student": {"accuracy": 0.7, "best_accuracy": 0.8, "model": "mlp(act=['relu'])"},
    "teachers": {"mean_accuracy": 0.5, "best_accuracy": 0.75},
    "ensemble": {"accuracy": 0.625},
    "bytes": {"up": 2_000_000, "down": 3_000},
    "seconds": 75.0,
    "failures": 3,
    "privacy": {"unit": "none"},
}


def text(table):
    console = Console(file=StringIO(), width=120)
    console.print(table)
    return console.file.getvalue()


def row(table, heading):
    """The line of a table that begins with `heading`."""
    (line,) = [line for line in text(table).splitlines() if line.strip("│┃ ").startswith(heading)]
    return line


def test_a_run_as_a_table():
    table = tables.summary(RUN)
    assert "tiny: fedmd on odd[red].npz" in text(table)
    assert "70.0%" in row(table, "student")
    assert "mlp(act=['relu'])" in row(table, "student")
    assert "75.0%" in row(table, "best teacher")
    assert "5.0" in row(table, "best teacher")
    assert "50.0%" in row(table, "teachers' mean")
    assert "20.0" in row(table, "teachers' mean")
    assert "62.5%" in row(table, "ensemble")
    assert "2.00 MB" in row(table, "sent")
    assert "3.00 kB" in row(table, "sent")
    assert "3 answers" in row(table, "left out")
    assert "NO DP" in row(table, "privacy")


def test_what_a_run_has_not_is_left_out():
    shown = text(tables.summary(RUN | {"teachers": None, "ensemble": None, "failures": 0}))
    assert not any(word in shown for word in ("teacher", "ensemble", "left out"))


def test_a_gain_is_by_teachers_only_where_there_are_some():
    latency = {"1": 0.5, "100": 2.0}
    model = {"model": "mlp", "accuracy": 0.8, "parameters": 9, "bytes": 36, "latency": latency}
    run = RUN | {"way": "born-again", "gain": 0.1, "student": model, "plain": 0.7, "teachers": []}
    alone = text(tables.distilled(run))
    assert "+10.0 points by the way 'born-again'" in alone
    assert "teacher" not in alone
    assert "by its teachers" in text(tables.distilled(run | {"teachers": [model]}))


def test_a_comparison_as_a_table():
    one, many = Spread(0.5, None), Spread(0.75, 0.021)
    shared = {"bytes_up": Spread(5e6, None), "bytes_down": one, "seconds": Spread(61.0, None)}
    table = tables.comparison(
        [
            ComparisonRow("dense", (0, 1), many, many, None, many, **shared),
            ComparisonRow("local", (0,), one, one, one, None, **shared),
        ]
    )
    dense, local = row(table, "dense"), row(table, "local")
    cells = re.split(r"\s{2,}", dense.strip())
    assert cells[:6] == ["dense", "2", *["75.0 ± 2.1"] * 2, "-", "75.0 ± 2.1"]
    assert "±" not in local
    assert "50.0" in local
    assert "5.00 MB" in local
    assert "own models" not in text(table)


def test_what_not_every_comparison_measures_has_columns_of_its_own():
    spread, none = Spread(0.5, None), None
    shared = (spread, spread, none, none, spread, spread, spread)
    found = {"own": Spread(0.8, 0.01), "members_sent": Spread(0.612, 0.034), "epsilon": 7.996}
    rows = [
        ComparisonRow("a", (0, 1), *shared, **found, members_student=Spread(0.5, 0.01)),
        ComparisonRow("b", (0, 1), *shared, members_student=Spread(0.51, 0.02)),
    ]
    assert further(rows) == {
        "own models": ("80.0 ± 1.0", "-"),
        "LiRA, sent": ("0.612 ± 0.034", "-"),
        "LiRA, student": ("0.500 ± 0.010", "0.510 ± 0.020"),
        "epsilon": ("8", "-"),
    }
    assert re.split(r"\s{2,}", row(tables.comparison(rows), "a").strip())[-4:] == [
        "80.0 ± 1.0",
        "0.612 ± 0.034",
        "0.500 ± 0.010",
        "8",
    ]
