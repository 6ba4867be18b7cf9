"""What the tests of reports in a browser share."""

import pytest
import tiny
from browser import browser
from example_run import blobs, write_run
from small import ignore, small
from test_audit_report import found

from fedkd.auditing.findings import Audited
from fedkd.auditing.poisoning.outcomes import HONEST, Poisoned, Poisoning
from fedkd.jobs.distil import distil
from fedkd.reports import audit_report
from fedkd.reports.report import write, write_comparison
from fedkd.runs.scores import ACCURACY_ALONE

POISONING = Poisoning(
    tuple(
        Poisoned(attack, share, defended, 0, score=0.5, success=0.1)
        for attack, share in ((HONEST, 0.0), ("collusion", 0.3))
        for defended in (False, True)
    ),
    ACCURACY_ALONE[0], "bag", 4,
)  # fmt: skip


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    """A browser for all of these tests."""
    with browser(tmp_path_factory.mktemp("profile")) as chrome:
        yield chrome


@pytest.fixture(scope="session")
def pages(rows, tmp_path_factory):
    """Pages of each kind, and of runs with long names and with many clients."""
    folder = tmp_path_factory.mktemp("runs")
    failures = [(2, 3, "ValueError while training a model with a very long name " * 4)]
    runs = [
        write_run(folder / "fedmd", failures=failures, generated=blobs()),
        write_run(folder / "dsfl", method="dsfl", name="x" * 80, lift=0.02),
        write_run(
            folder / "many",
            clients=200,
            rounds=3,
            classes=[f"a long class name {i}" for i in range(100)],
        ),
    ]
    reports = [write(run) for run in runs]
    comparison = write_comparison(runs[:2], folder / "comparison.html")
    experiment = tiny.experiment(rows, {"name": "x" * 80})
    audits = {"audit": found(None), "poisoning": Audited(poisoning=POISONING)}
    for name, audited in audits.items():
        (folder / name).mkdir()
        audit_report.write(audited, folder / name, experiment, claim=None)
    distil(small(rows, name="x" * 80), folder / "distil", ignore)
    return {
        "report": reports[0],
        "long": reports[1],
        "many": reports[2],
        "comparison": comparison,
        **{name: folder / name / "audit.html" for name in audits},
        "distil": folder / "distil" / "report.html",
    }
