"""What an audit found, printed."""

from typing import TYPE_CHECKING

from fedkd.cli.common import answer, report_line

if TYPE_CHECKING:
    from fedkd.auditing.findings import Audited


def say_found(found: "Audited") -> None:
    """Print what an audit found, and where its page is, if it has one.

    A violation is an error, once all of it is said.
    """
    from fedkd.auditing.verdicts import raise_on_violation
    from fedkd.reports import audit_tables

    value = audit_tables.as_json(found)
    if (page := found.page) is None:
        answer(value, audit_tables.tables(found))
    else:
        answer({"report": page, **value}, report_line(page), audit_tables.tables(found))
    raise_on_violation(found.outcomes)
