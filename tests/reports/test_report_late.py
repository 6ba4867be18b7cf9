"""Who was late, in the report of an asynchronous run and in a round's line."""

import re

from example_run import read_lines, write_lines, write_run

from fedkd.reports.display import round_in_words
from fedkd.reports.report import write


def moment(time, *answers):
    keys = ("client", "round", "staleness", "outcome")
    return {"time": time, "answers": [dict(zip(keys, each, strict=True)) for each in answers]}


FIRST = moment(1.0, (0, 1, 0, "used"), (1, 1, 0, "used"))
SECOND = (
    moment(1.5, (2, 1, 1, "replaced")),
    moment(2.25, (0, 2, 0, "used"), (2, 2, 0, "used"), (3, 1, 1, "used")),
)
THIRD = (moment(3.0, (3, 1, 2, "used"), (0, 3, 0, "failed")),)


def written(path, time=3.0):
    run = write_run(path, clients=4, rounds=3)
    lines = read_lines(run)
    for line, moments in zip(lines, ((FIRST,), SECOND, THIRD), strict=True):
        line["asynchronous"] = {"time": time, "moments": moments, "kept": []}
    write_lines(run, lines)
    config = run / "config.toml"
    text = config.read_text(encoding="utf-8")
    config.write_text(f"{text}\n[clients.asynchronous]\nbuffer = 2\n", encoding="utf-8")
    return run, lines


def test_the_report_says_who_was_late_and_by_how_much(tmp_path):
    run, _ = written(tmp_path / "run")
    page = write(run).read_text(encoding="utf-8")
    rows = re.findall(
        r">(Client \d+)</th><td>(\d+)</td><td>(.*?)</td><td>(.*?)</td><td>(\d+)<", page
    )
    assert rows == [
        ("Client 0", "2", "0.0", "0", "1"),
        ("Client 1", "1", "0.0", "0", "0"),
        ("Client 2", "1", "0.0", "0", "1"),
        ("Client 3", "2", "1.5", "2", "0"),
    ]
    assert "a step after 2 answers, and used none to a broadcast of more than 10 steps" in page
    assert "The last step was made at second 3 of the virtual clock." in page


def test_where_times_would_tell_of_protected_records_there_are_none(tmp_path):
    run, _ = written(tmp_path / "run", time=None)
    page = write(run).read_text(encoding="utf-8")
    assert "Who was late" in page
    assert "The last step" not in page


def test_a_rounds_line_names_who_was_late(tmp_path):
    _, lines = written(tmp_path / "run")
    late = [re.findall(r"client \d+ \w+ steps? late", round_in_words(line)) for line in lines]
    assert late == [[], ["client 3 one step late"], ["client 3 two steps late"]]
