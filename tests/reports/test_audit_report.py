"""The page of an audit says what was claimed, measured, and at most measurable; and draws it."""

import json
import re

import numpy as np
import pytest
import torch
from test_report import Page

from fedkd import config
from fedkd.auditing.findings import Audited
from fedkd.auditing.inversion import Inversion
from fedkd.auditing.membership import one_attack
from fedkd.auditing.verdicts import Bound, Check, Claim, Shortfall, judge
from fedkd.privacy.events import Gaussian
from fedkd.reports import audit_report
from fedkd.reports.charts.roc import roc_chart
from fedkd.version import __version__

EXPERIMENT = config.parse(
    {
        "name": "mine",
        "data": {"name": "fashion-mnist-sample"},
        "clients": {"count": 2},
        "method": {"name": "fedmd"},
    }
)
CLAIM = Claim.of([Gaussian("teacher training", 2.0, 0.5, 4)], 1e-5)


def attack(name="LiRA", on="the answers of all rounds", claim=CLAIM, shift=1.0, size=400):
    draw = np.random.default_rng(len(name))
    included = np.repeat([True, False], size)
    told = draw.normal(0, 1, 2 * size) + shift * included
    return one_attack(name, on, "a server", told, included, claim=claim, tossed=True)


def inversion():
    images = torch.linspace(0, 1, 2 * 1 * 4 * 4).reshape(2, 1, 4, 4)
    return Inversion(3, (0, 1), images, images.flip(0), (0.1, 0.4), (0.2, 0.3), 0.5)


def found(claim=CLAIM, measured=1.0):
    bounds = (Bound("one run", measured, 4.5),)
    verdict = judge("DP-SGD of client 0", bounds, claim=CLAIM, threat="sees all", canaries=1000)
    return Audited(
        verdicts=(verdict,),
        checks=(Check("Poisson sampling", "CONSISTENT", "as expected"),),
        attacks=(
            attack(claim=claim),
            attack("RMIA", claim=claim),
            attack("LiRA", "the student", claim),
        ),
        inversions=(inversion(),),
        notes=("the generator: not tried",),
    )


@pytest.fixture
def page(tmp_path):
    return Page(audit_report.write(found(), tmp_path, EXPERIMENT, claim=CLAIM))


def test_the_page_holds_claim_measurement_and_ceiling(page):
    for word in (
        f"epsilon {CLAIM.epsilon:.4g}", "1.000", "4.50", "1,000", "95% confidence", "CONSISTENT",
        "record, add-remove, delta 1e-05", "Attacker: a server", "Attacker: sees all",
        "Poisson sampling", "The generator: not tried", "NO POWER",
    ):  # fmt: skip
        assert word in page.text
    assert "passed" not in page.text.lower()
    assert "At least one claim does not hold" not in page.text


def test_attacks_are_drawn_by_target_on_log_axes_with_what_the_claim_allows(page, tmp_path):
    html = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert html.count('<figure id="roc-') == 2
    for word in ("LiRA: AUC", "RMIA: AUC", "shaded: more than the claim allows", "0.1%", "100%"):
        assert word in html
    assert "Attacks on the student" in page.text
    assert len(re.findall(r"<img src=\"data:image/png;base64,", html)) == 2
    assert "1 of 2 classes are drawn nearer" in page.text
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", html)  # self-contained


def test_a_claim_that_does_not_hold_is_at_the_top(tmp_path):
    page = Page(audit_report.write(found(measured=4.4), tmp_path, EXPERIMENT, claim=CLAIM))
    assert "At least one claim does not hold." in page.text
    assert "VIOLATION" in page.text


def test_the_page_says_what_it_is_about_and_what_epsilon_does_not_cover(page, tmp_path):
    for word in (f"fedkd: {__version__}", "Method: fedmd", "Data set: fashion-mnist-sample"):
        assert word in page.text
    assert re.search(r"Date: 20\d\d-\d\d-\d\d \d\d:\d\d UTC", page.text)
    assert "What epsilon does not cover" in page.text
    assert "Test records are not protected" in page.text
    told = json.loads((tmp_path / "audit.json").read_text())
    assert (told["method"], told["fedkd"]) == ("fedmd", __version__)
    assert "Experiment as it ran: " in page.text  # sites allow another number
    assert len(told["experiment as it ran"]) == 64


def test_what_was_not_seen_is_unexplained(tmp_path):
    bounds = (Bound("one run", 0.1, 9.0),)
    how = {"claim": CLAIM, "threat": "sees all", "canaries": 1000}
    shortfall = Shortfall("UNEXPLAINED", "DP-SGD: an AUC of 0.500")
    verdict = judge("DP-SGD", bounds, **how, shortfall=shortfall)
    page = Page(audit_report.write(Audited(verdicts=(verdict,)), tmp_path, EXPERIMENT, claim=CLAIM))
    assert "Part of it could not be audited: see UNEXPLAINED." in page.text
    assert "an AUC of 0.500" in page.text
    assert 'class="privacy protected"' not in (tmp_path / "audit.html").read_text("utf-8")


CLIENTS = ("dsfl", {"unit": "client-votes", "epsilon": 2.0})
SECURE = ("analytic", {"epsilon": 2.0, "secure_aggregation": True})


@pytest.mark.parametrize(
    ("told", "said", "unsaid"),
    [
        (("fedmd", {"epsilon": 2.0}), ["whether one record took part"], ["trusted", "the sum"]),
        (CLIENTS, ["what one client answered, not that it took part", "trusted"], ["whether one"]),
        (SECURE, ["whether one record took part", "sees the sum alone"], ["trusted"]),
    ],
)
def test_what_epsilon_does_not_cover_follows_from_the_unit(told, said, unsaid, tmp_path):
    method, privacy = told
    changes = {"method": {"name": method}, "privacy": privacy, "rounds": 1}
    experiment = config.parse(
        {**EXPERIMENT.model_dump(exclude_none=True, exclude_unset=True), **changes}
    )
    page = Page(audit_report.write(found(), tmp_path, experiment, claim=CLAIM))
    for word in [*said, "the proxy set", "deals records", "run folder"]:
        assert word in page.text
    for word in unsaid:
        assert word not in page.text.split("What epsilon does not cover")[-1]


def test_without_dp_the_page_says_so(tmp_path):
    page = Page(audit_report.write(found(None), tmp_path, EXPERIMENT, claim=None))
    assert "NO DP" in page.text
    assert "no claim" in page.text
    assert "What epsilon does not cover" not in page.text
    assert "more than the claim allows" not in page.text


def test_the_same_stands_beside_it_for_programs(page, tmp_path):
    told = json.loads((tmp_path / "audit.json").read_text())
    assert [each["outcome"] for each in told["verdicts"]] == ["CONSISTENT"]
    assert told["attacks"][0]["auc"]["value"] > 0.7
    assert told["attacks"][0]["claim"]["epsilon"] == pytest.approx(CLAIM.epsilon)
    assert told["attacks"][0]["tpr"]["0.001"] is None


def test_a_chart_is_drawn_of_an_attack_that_found_nobody():
    chart = roc_chart("roc", [attack(shift=-9.0)], CLAIM)
    assert "LiRA" in chart.wide


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (20, "There are too few records for an interval at 1% false positives."),
        (400, "Bars: 95% intervals at 1% false positives."),
        (4000, "Bars: 95% intervals at 1% and 0.1% false positives."),
    ],
)
def test_a_caption_names_the_bars_that_are_drawn(size, said):
    assert said in roc_chart("roc", [attack(size=size)], None).caption
