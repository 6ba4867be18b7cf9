"""A report as a page: one self-contained HTML file."""

import re
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from fedkd.reports.links import ComparedIn, markup
from fedkd.reports.parts import Report


def render(report: Report, compared: tuple[ComparedIn, ...] = ()) -> str:
    """The page.

    Args:
        report: what it holds.
        compared: the comparisons that it leads to.
    """
    links = Markup(markup(compared))  # noqa: S704 - escaped there
    return page("report.html", report=report, compared=links)


def page(template: str, **values: Any) -> str:
    """A page of `templates/`, filled in."""
    return _templates().get_template(template).render(values)


@cache
def _templates() -> Environment:
    """The templates, each compiled once: that takes longer than to fill one in."""
    environment = Environment(
        loader=PackageLoader("fedkd.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inline"] = _inline
    return environment


def _inline(text: str) -> Markup:
    """Words in which what stands between backticks is code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\g<1></code>", escape(text)))  # noqa: S704 - escaped
