"""Reports for people who see little, have no mouse, read in the dark, on a phone or on paper."""

import re
from pathlib import Path

import numpy as np
import pytest
from browser import NEEDS_BROWSER, axe, overflow, prefer, resize
from selenium.webdriver.common.keys import Keys

from fedkd.reports import report
from fedkd.reports.charts.drawing import ON_FAINT, ON_STRONG, RAMP

KINDS = ("report", "comparison", "audit", "poisoning", "distil")
SHEET = Path(report.__file__).parent / "templates" / "style.css"


PRINTED = """
const wide = part => part.getBoundingClientRect().right > innerWidth + 1;
const named = part => part.outerHTML.slice(0, 80);
return [
  getComputedStyle(document.documentElement).getPropertyValue('--ink').trim(),
  [...document.querySelectorAll('table, pre')].filter(wide).map(named),
  [...document.querySelectorAll('main pre, section > details .grid')]
    .filter(part => part.clientHeight < 50).map(named),
  document.querySelector('nav').checkVisibility(),
];
"""
FAINT_TEXTS = """
const light = colour => {
  const [r, g, b] = colour.match(/[\\d.]+/g).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b;
};
const ground = light(getComputedStyle(document.body).backgroundColor);
return [...document.querySelectorAll('.chart svg text')]
  .filter(t => t.closest('svg').clientWidth && t.textContent.trim())
  .filter(t => !t.outerHTML.includes('--on-'))
  .map(t => {
    const own = light(getComputedStyle(t).fill);
    return [t.textContent, (Math.max(own, ground) + .05) / (Math.min(own, ground) + .05)];
  }).filter(([, contrast]) => contrast < 4.5);
"""


@pytest.mark.slow
@NEEDS_BROWSER
@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_nothing_on_a_phone_and_charts_are_legible_in_the_light_and_dark(
    driver, pages, kind
):
    resize(driver, 390)
    # All kinds share one template and one sheet: each ground is looked at on some of them.
    grounds = [("light", "rgba(251, 250, 247, 1)"), ("dark", "rgba(20, 23, 30, 1)")]
    for scheme, ground in grounds if KINDS.index(kind) % 2 else reversed(grounds):
        prefer(driver, prefers_color_scheme=scheme)
        driver.get(pages[kind].as_uri())
        body = driver.find_element("tag name", "body")
        assert body.value_of_css_property("background-color") == ground
        assert driver.execute_script(FAINT_TEXTS) == []
    driver.execute_script(
        "document.querySelectorAll('section > details').forEach(d => d.open = true)"
    )
    assert axe(driver) == []
    assert overflow(driver) == 0


@pytest.mark.slow
@NEEDS_BROWSER
def test_keys_reach_the_report_and_scroll_a_table_that_says_it_is_wide(driver, pages):
    prefer(driver)
    resize(driver, 390)
    driver.get(pages["comparison"].as_uri())
    driver.find_element("tag name", "body").send_keys(Keys.TAB)
    link = driver.switch_to.active_element
    assert link.text == "Skip to the report"
    assert link.rect["y"] >= 0
    assert link.value_of_css_property("outline-style") == "solid"
    link.send_keys(Keys.ENTER)
    assert driver.switch_to.active_element.get_attribute("id") == "main"
    driver.switch_to.active_element.send_keys(Keys.TAB)
    table = driver.switch_to.active_element
    assert table.accessible_name == "Table: Figures by method"
    room, there, hint = driver.execute_script(
        "const t = arguments[0];"
        "return [t.clientWidth, t.scrollWidth, getComputedStyle(t, '::before').maxHeight]", table
    )  # fmt: skip
    assert there > room
    assert hint != "0px"
    table.send_keys(Keys.END, Keys.ARROW_RIGHT)
    moved = "return arguments[0].scrollLeft > 0"
    assert driver.execute_async_script(
        "const [t, done] = arguments; t.scrollLeft ? done(true) : t.onscroll = () => done(true)",
        table,
    )
    assert driver.execute_script(moved, table)
    resize(driver, 1280)
    driver.get(pages["distil"].as_uri())
    fits = driver.find_element("css selector", "section[aria-labelledby=models] .grid")
    shown = "return getComputedStyle(arguments[0], '::before').maxHeight"
    assert driver.execute_script(shown, fits) == "0px"


@pytest.mark.slow
@NEEDS_BROWSER
def test_paper_is_light_cuts_no_table_unfolds_and_names_addresses(driver, pages):
    resize(driver, 690)  # A4 less its margins
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": dark})
    for kind in KINDS:
        driver.get(pages[kind].as_uri())
        assert driver.execute_script(PRINTED) == ["#1d2230", [], [], False], kind
        links = driver.execute_script(
            "return [...document.querySelectorAll('main a')]"
            ".map(a => getComputedStyle(a, '::after').content)"
        )
        if kind == "comparison":
            assert sorted(links) == ['" (dsfl/report.html)"', '" (fedmd/report.html)"']
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def luminance(colour):
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def turned(colour):
    """A colour under the sheet's filter: CSS filter effects, 8.5 (hue-rotate by 180 degrees)."""
    rotate = np.array([[-0.574, 1.43, 0.144], [0.426, 0.43, 0.144], [0.426, 1.43, -0.856]])
    return np.clip(rotate @ (1 - colour), 0, 1) * 0.88


@pytest.mark.parametrize(("dark", "change"), [(False, lambda c: c), (True, turned)])
def test_numbers_in_a_heat_map_stand_out_from_their_cells(dark, change):
    css = SHEET.read_text(encoding="utf-8")
    assert "invert(1) hue-rotate(180deg) brightness(.88)" in css
    named = [re.findall(rf"--{name}: (#\w+);", css) for name in ("on-faint", "on-strong")]
    assert [each[0] for each in named] == [ON_FAINT, ON_STRONG]
    faint, strong = (
        np.array([int(each[dark][at : at + 2], 16) / 255 for at in (1, 3, 5)]) for each in named
    )
    for value in np.linspace(0, 1, 51):
        cell, own = change(np.array(RAMP(value)[:3])), strong if value > 0.6 else faint
        low, high = sorted((luminance(cell), luminance(own)))
        assert (high + 0.05) / (low + 0.05) > 4.2, value
