"""Reports in Markdown, read as GitHub reads it."""

import re
from html import unescape
from xml.etree import ElementTree

from example_run import blobs, write_run
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from test_audit_report import CLAIM, EXPERIMENT, found

from fedkd.reports import audit_report, markdown
from fedkd.reports.grid import Grid, Link, Noted, columns
from fedkd.reports.parts import FileText, Paragraph, Report, Section
from fedkd.reports.report import write_comparison_markdown, write_markdown

HTML = MarkdownIt("commonmark", {"html": True}).enable("table")
"""A document's own HTML is let through, so a test sees what should not be markup."""


def report(*parts, name="a run"):
    return Report(
        kind="run", name=name, lead="Lead.", stamp="NO DP", privacy="None.", protected=False,
        sections=(Section("one", "One", parts),),
    )  # fmt: skip


def shown(*parts):
    return HTML.render(markdown.render(report(*parts), "charts"))


def cells(html):
    return [
        [
            unescape(re.sub("<[^>]*>", "", cell)).strip()
            for cell in re.findall(r"<td.*?>(.*?)</td>", row)
        ]
        for row in re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)[1:]
    ]


def test_a_run_is_one_document_with_its_charts_beside_it(tmp_path):
    run = write_run(
        tmp_path / "run", name="a_b_c", failures=[(2, 3, "a | b\n<script>")], rounds=3, clients=3,
        generated=blobs(per_class=1),
    )  # fmt: skip
    text = write_markdown(run, run / "report.md").read_text(encoding="utf-8")
    html = HTML.render(text)
    pictures = re.findall(r'<img src="([^"]*)" alt="([^"]+)"', html)
    assert [path for path, _ in pictures] == [
        f"report-charts/{name}.svg"
        for name in ("by-round", "by-client", "by-class", "partition", "traffic", "time")
    ]
    for path, _ in pictures:
        svg = (run / path).read_text(encoding="utf-8")
        ElementTree.fromstring(svg)
        assert 'fill="#ffffff"' in svg  # legible on a dark page
        assert "var(--" not in svg
    assert "<h1>a_b_c</h1>" in html
    for said in ("The student ends at", "NO DP", "No differential privacy", "What it cost",
                 "stand in the HTML report alone", '[privacy]\ndelta'):  # fmt: skip
        assert said in unescape(html)
    assert "<script>" not in html
    assert ["2", "3", "a | b <script>"] in cells(html)
    assert all(
        len(set(map(len, cells(each)))) == 1
        for each in re.findall("<table>.*?</table>", html, re.DOTALL)
    )


def test_a_comparison_leads_to_its_runs_and_an_audit_is_written_too(tmp_path):
    runs = [write_run(tmp_path / f"r {m}", method=m, rounds=1, name=m) for m in ("fedmd", "dsfl")]
    (runs[0] / "report.html").touch()
    text = write_comparison_markdown(runs, tmp_path / "new" / "both.md").read_text("utf-8")
    assert "[fedmd](../r%20fedmd/report.html)" in text
    assert (tmp_path / "new" / "both-charts" / "by-method.svg").exists()
    audit_report.write(found(), tmp_path, EXPERIMENT, claim=CLAIM)
    html = HTML.render((tmp_path / "audit.md").read_text(encoding="utf-8"))
    for said in ("CONSISTENT", "Test records are not protected", "audit-charts/roc-0.svg"):
        assert said in html
    assert "data:" not in html  # pictures of a client's records stay in the page


@given(st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1))
@example("* a_b_ `c` <b> [x](y) | $z$ ~~s~~ &amp; \\ #1 ![i](j) **w** www.x.org 1. +")
def test_text_is_never_markup(text):
    html = shown(Grid("t", columns("Name", "Value"), ((text, Noted(text, "x")),)))
    expected = re.sub(r"\s+", " ", text).strip()
    [row] = cells(html)
    assert [re.sub(r"\s+", " ", cell) for cell in row] == [expected, f"{expected} x".strip()]


def test_code_links_and_fences():
    html = shown(
        Paragraph("set `clients.max_weight` to a_b"),
        Grid("t", columns("Run", "n"), ((Link("a", "b/c.html"), "1"), (Link("d", None), "2"))),
        FileText("x = '''\n```\n````\n'''", "toml"),
    )  # fmt: skip
    assert "<code>clients.max_weight</code> to a_b" in html
    assert '<a href="b/c.html">a</a>' in html
    assert html.count("<a ") == 1
    assert "```\n````\n'''" in html
