"""A real browser for tests: what a page says, asks for and leaves out of its width, and axe."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
NEEDS_BROWSER = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="chromium or chromedriver is not installed"
)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@contextmanager
def browser(profile: Path) -> Iterator[webdriver.Chrome]:
    """Chromium with a profile folder of its own; it logs what pages complain of and ask for."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with pytest.MonkeyPatch.context() as patch:
        # The driver is named; nothing is to be looked for on the network.
        patch.setenv("SE_OFFLINE", "true")
        chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    chrome.set_script_timeout(300)  # a busy machine
    try:
        yield chrome
    finally:
        chrome.quit()


def resize(driver: webdriver.Chrome, width: int) -> None:
    """Make the page so many CSS pixels wide; below 500 as on a phone."""
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )


def prefer(driver: webdriver.Chrome, **features: str) -> None:
    """Media features that the reader prefers, such as `prefers_color_scheme="dark"`."""
    wanted = [{"name": n.replace("_", "-"), "value": value} for n, value in features.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})


def overflow(driver: webdriver.Chrome) -> int:
    """By how many pixels the page is wider than the screen."""
    return driver.execute_script(
        "const page = document.documentElement; return page.scrollWidth - page.clientWidth"
    )


def requests(driver: webdriver.Chrome) -> set[str]:
    """What has been asked for since the last call, by URL without fragment."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [m for m in messages if m["method"] == "Network.requestWillBeSent"]
    return {m["params"]["request"]["url"].partition("#")[0] for m in sent}


def axe(driver: webdriver.Chrome, *, without: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """What axe-core finds wrong on the page as it is shown now: rule, help, and where.

    Args:
        driver: at the page.
        without: rules that are left out, by their ids.
    """
    driver.execute_script((files("axe_core_python") / "axe.min.js").read_text("utf-8"))
    found = driver.execute_async_script(
        """
        const [without, done] = arguments;
        const rules = Object.fromEntries(without.map(id => [id, {enabled: false}]));
        axe.run(document, {rules, resultTypes: ['violations']}).then(r => done(r.violations));
        """,
        list(without),
    )
    return [
        {"rule": each["id"], "help": each["help"], "at": [node["html"] for node in each["nodes"]]}
        for each in found
    ]
