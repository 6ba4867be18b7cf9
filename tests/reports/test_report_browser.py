"""All pages in a real browser, at a desk's width and at a phone's."""

import pytest
from browser import NEEDS_BROWSER, overflow, requests, resize

pytestmark = [NEEDS_BROWSER, pytest.mark.slow]


def at(driver, page, width):
    resize(driver, width)
    driver.get(page.as_uri())


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["report", "long", "many", "comparison", "audit", "distil"])
def test_page_is_quiet_complete_and_fits(driver, pages, name, width):
    requests(driver)  # what an earlier page asked for
    at(driver, pages[name], width)
    assert driver.get_log("browser") == []
    assert {u for u in requests(driver) if not u.startswith("data:")} == {pages[name].as_uri()}
    assert overflow(driver) == 0
    for part in ("headline", "privacy"):
        assert driver.find_element("id", part).is_displayed()
    assert "NO DP" in driver.find_element("id", "privacy").text
    figures = driver.find_elements("css selector", "figure.chart")
    assert figures
    for figure in figures:
        shown = [s for s in figure.find_elements("css selector", "svg") if s.is_displayed()]
        assert len(shown) == 1
        assert min(shown[0].size.values()) > 40


CLIPPED = """
const charts = [...document.querySelectorAll('figure.chart svg')].filter(s => s.clientWidth);
return charts.flatMap(svg => {
  const box = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(t => t.textContent.trim()).map(t => {
    const own = t.getBoundingClientRect();
    return [t.textContent, own.left - box.left, box.right - own.right,
            own.top - box.top, box.bottom - own.bottom];
  });
});
"""
FONTS = """
return [...document.querySelectorAll('figure.chart svg')].filter(s => s.clientWidth).flatMap(svg =>
  [...svg.querySelectorAll('text')].map(t => parseFloat(getComputedStyle(t).fontSize)
    * svg.clientWidth / svg.viewBox.baseVal.width));
"""


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["report", "many", "comparison", "audit", "distil"])
def test_chart_texts_are_legible_and_inside_their_chart(driver, pages, name, width):
    at(driver, pages[name], width)
    texts = driver.execute_script(CLIPPED)
    assert len(texts) > 20
    assert [text for text, *margins in texts if min(margins) < -2] == []
    assert min(driver.execute_script(FONTS)) >= 9.5


def test_details_open(driver, pages):
    at(driver, pages["report"], 390)
    for details in driver.find_elements("css selector", "details"):
        details.find_element("tag name", "summary").click()
    assert 'name = "fmnist-fedmd"' in driver.find_element("tag name", "pre").text
    assert overflow(driver) == 0
