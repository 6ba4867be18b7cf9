"""A comparison and its runs lead to each other, by relative addresses."""

import re

import pytest
from example_run import write_run
from markupsafe import Markup
from test_report import Page

from fedkd.reports import links
from fedkd.reports.charts import drawing
from fedkd.reports.report import write, write_comparison


@pytest.fixture(scope="module", autouse=True)
def undrawn():
    """Charts are most of the time of so small a page, and not what is tested here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "_svg", lambda *_: Markup("<svg/>"))
        yield


@pytest.fixture(scope="module")
def compared(tmp_path_factory, undrawn):
    """Two runs of one name, one with a page before it is compared, and their comparison."""
    folder = tmp_path_factory.mktemp("a b")
    runs = [
        write_run(folder / f"run {m}", method=m, rounds=1, clients=2, classes=("cat", "dog"))
        for m in ("fedmd", "dsfl")
    ]
    for run in runs:
        write(run)
    return write_comparison(runs, folder / "report.html"), runs


def leads(page):
    """Where the links of a page lead that stay in no page, as files."""
    found = [each for each in Page(page).links if not each.startswith(("#", "data:"))]
    assert not any(each.startswith(("/", "file:")) for each in found)
    return {(page.parent / each.replace("%20", " ")).resolve() for each in found}


def test_runs_of_one_name_are_linked_by_their_folders_and_lead_back(compared):
    comparison, runs = compared
    assert leads(comparison) == {(run / "report.html").resolve() for run in runs}
    assert {">run fedmd</a>", ">run dsfl</a>"} <= set(
        re.findall(r">[^<]*</a>", comparison.read_text())
    )
    for run in runs:
        assert leads(run / "report.html") == {comparison.resolve()}
        assert "Compared with other runs in" in Page(run / "report.html").text


def test_a_page_that_is_written_again_keeps_the_links_of_comparisons_that_are_there(compared):
    comparison, (run, _) = compared
    before = (run / "report.html").read_bytes()
    assert write(run).read_bytes() == before
    other = write_comparison([run], comparison.with_name("other.html"))
    write_comparison([run], other)
    assert Page(run / "report.html").links.count("../other.html") == 1
    assert leads(run / "report.html") == {comparison.resolve(), other.resolve()}
    other.unlink()
    write(run)
    assert leads(run / "report.html") == {comparison.resolve()}


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "https://example.org/x.html", "missing.html", "config.toml"]
)
def test_of_a_page_that_is_anybodys_only_names_of_pages_that_are_there_are_kept(address, tmp_path):
    page = tmp_path / "report.html"
    link = links.markup([links.ComparedIn(address, "x")])
    page.write_text(f"<p>{link}</p>")
    (tmp_path / "config.toml").touch()
    assert links.compared(page) == ()


def test_a_page_without_a_place_for_links_stays_as_it_is(tmp_path):
    page = tmp_path / "report.html"
    page.write_text("<p>older</p>")
    links.link_back([page, tmp_path / "none.html"], tmp_path / "comparison.html")
    assert page.read_text() == "<p>older</p>"
