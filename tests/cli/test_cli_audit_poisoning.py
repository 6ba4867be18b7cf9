"""`fedkd audit poisoning`, end to end: the table, the page, going on, and what is refused."""

import json

import pytest
import tiny
from test_report import Page

from fedkd.jobs.audit import poisoning

CHANGES = {"rounds": 1, "method.student": {"epochs": 30}}


@pytest.fixture(scope="module")
def config(rows, tmp_path_factory):
    return tiny.write_config(tmp_path_factory.mktemp("poisoned") / "tiny.toml", rows, CHANGES)


@pytest.fixture
def audited(run, config, here):
    def call(*options):
        return run("audit", "poisoning", config, "--out", here / "out", *options)

    return call


def test_attacks_are_told_beside_the_honest_run_on_a_page_and_by_the_report(audited, here, config):
    status, out, complaint = audited("--attacks", "collusion,backdoor", "--shares", "0.25")
    assert (status, complaint) == (0, "")
    told = json.loads((here / "out" / "audit.json").read_text())["poisoning"]
    cells = [(r["attack"], r["share"], r["defended"]) for r in told["runs"]]
    attacked = [(a, 0.25, d) for a in ("collusion", "backdoor") for d in (0, 1)]
    assert cells == [("honest", 0.0, False), ("honest", 0.0, True), *attacked]
    honest, loud, _ = told["rows"]
    assert [len(r["hostile"]) for r in told["runs"][::2]] == [0, 1, 1]
    assert honest["bare"] > 0.8
    assert loud["bare"] == pytest.approx(1 / 3)  # all are called the target
    assert loud["bare_success"] == 1.0 > honest["bare_success"]
    assert loud["defended"] > 0.8
    assert (loud["caught"], loud["wronged"]) == (1, 0)
    page = Page(here / "out" / "audit.html")
    for word in ("What hostile clients do", "they all send the same", "33.3%", "Nobody is hostile"):
        assert word.lower() in page.text.lower(), word
    assert "collusion" in out
    assert poisoning.load(here / "out").runs == poisoning.read(here / "out")


def test_runs_that_are_done_are_not_run_again(audited, here, monkeypatch):
    assert audited("--attacks", "lma", "--shares", "0.25", "--no-defence")[0] == 0
    before = (here / "out" / "poisoning.jsonl").read_text().splitlines()
    asked = []
    kept = poisoning.run

    def counted(experiment, cell):
        asked.append(cell.cell)
        return kept(experiment, cell)

    monkeypatch.setattr(poisoning, "run", counted)
    again = ("--attacks", "lma,collusion", "--shares", "0.25,0.25", "--no-defence")
    status, _, complaint = audited(*again)
    assert status == 2
    assert "go on with --resume" in complaint
    status, out, _ = audited(*again, "--resume", "--json")
    assert (status, asked) == (0, [("collusion", 0.25, False, 7)])
    after = (here / "out" / "poisoning.jsonl").read_text().splitlines()
    assert after[: len(before)] == before
    rows = json.loads(out)["poisoning"]["rows"]
    assert [row["attack"] for row in rows] == ["honest", "lma", "collusion"]
    assert len(json.loads(out)["poisoning"]["runs"]) == 3  # a share that is named twice runs once


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--shares", "0.05"), "share 0.05 of 4 clients gives 0 attackers: expected 1 to 3"),
        (("--shares", "0.9"), "share 0.9 of 4 clients gives 4 attackers"),
        (("--shares", "1"), "share 1 of hostile clients: expected above 0 and below 1"),
        (("--shares", "nan"), "share nan of hostile clients: expected above 0 and below 1"),
        (("--shares", ","), "no share of hostile clients is given: expected such as 0.25"),
        (("--shares", "many"), "'many' is no number"),
        (("--attacks", "alie"), "attack 'alie' does not apply to method 'fedmd': it forges models"),
        (("--attacks", "colusion"), "did you mean 'collusion'"),
        (("--set", "privacy.epsilon=8"), "attack it without, by --set privacy.unit=none"),
        (
            ("--set", "privacy.secure_aggregation=true", "--set", "method.name=analytic"),
            "hides each client's upload in a sum",
        ),
        (("--shares", "0.25", "--resume"), "nothing to resume"),
    ],
)
def test_what_cannot_be_poisoned_is_refused_in_a_line(audited, here, options, complaint):
    status, _, said = audited(*options)
    assert status == 2
    assert complaint in " ".join(said.split())
    assert not (here / "out").exists()


def test_a_damaged_line_is_named(audited, here, config):
    assert audited("--attacks", "fdla", "--shares", "0.5", "--no-defence")[0] == 0
    with (here / "out" / "poisoning.jsonl").open("a") as file:
        file.write("{\n")
    status, _, said = audited("--attacks", "fdla", "--shares", "0.5", "--resume")
    assert status == 2
    assert "is damaged: take out the line" in " ".join(said.split())
