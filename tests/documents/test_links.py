"""Links of the documents lead somewhere, and the site shows every page."""

import re
from pathlib import Path

import fenced
import pytest

import fedkd

DOCS = fenced.ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
MADE = {"reference/commands.md"}
"""Pages that the site's build makes."""


def anchor(heading: str) -> str:
    """What a heading is linked by: GitHub's rule, which is also the site's."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def prose(path: Path) -> str:
    return re.sub(r"^ *```.*?^ *```", "", path.read_text("utf-8"), flags=re.M | re.S)


@pytest.mark.parametrize(
    "document",
    [*PAGES, *fenced.ROOT.glob("*.md")],
    ids=lambda path: str(path.relative_to(fenced.ROOT)),
)
def test_every_link_resolves(document):
    links = re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)", prose(document))
    for target, place in links:
        linked = (document.parent / target).resolve() if target else document
        if DOCS in linked.parents and str(linked.relative_to(DOCS)) in MADE:
            continue
        assert linked.exists(), target
        if place:
            headings = re.findall(r"^#+ (.*)$", prose(linked), flags=re.MULTILINE)
            assert place in map(anchor, headings), f"{target}#{place}"


def test_the_survey_is_linked_to_its_set_ups():
    assert len(re.findall(r"\]\((?!https?:)[^)]*\)", prose(DOCS / "survey.md"))) > 20


def test_every_page_has_its_place_in_the_site():
    site = (fenced.ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = re.findall(r"(?:- |: )([\w/]+\.md)$", site, flags=re.MULTILINE)
    pages = {str(page.relative_to(DOCS)) for page in PAGES} | MADE
    assert set(named) ^ pages == set()
    assert len(named) == len(set(named))


def test_the_reference_has_every_public_name():
    text = (DOCS / "reference" / "python.md").read_text("utf-8")
    names = set(fedkd.__all__) - {"FedkdError", "__version__"}  # errors have a page of their own
    shown = set(re.findall(r"^      heading: fedkd\.(\w+)$", text, flags=re.MULTILINE))
    [answers] = re.findall(r"members: \[(.*)\]", text)
    assert names <= shown | set(answers.split(", "))
