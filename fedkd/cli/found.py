"""What an audit found, printed."""

import json
from typing import TYPE_CHECKING

import typer

from fedkd.cli.common import out

if TYPE_CHECKING:
    from fedkd.auditing.findings import Audited


def say_found(found: "Audited", *, as_json: bool) -> None:
    """Print what an audit found; a violation is an error, once all of it is said."""
    from fedkd.auditing.verdicts import raise_on_violation
    from fedkd.reports import audit_tables

    if as_json:
        typer.echo(json.dumps(audit_tables.as_json(found), indent=2, allow_nan=False))
    else:
        out.print(audit_tables.tables(found))
    raise_on_violation(found.outcomes)
