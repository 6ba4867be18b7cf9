"""The page that follows a run, in a real browser: a simulation to its end, and a deployment's stop.

All in one test, since a browser and a run cost seconds.
"""

from threading import Event, Thread

import pytest
import tiny
from browser import NEEDS_BROWSER, axe, browser, overflow, prefer, requests, resize
from processes import PATIENCE
from selenium.webdriver import Keys
from selenium.webdriver.support.ui import WebDriverWait

from fedkd.jobs.simulate import simulate
from fedkd.jobs.watch import AskedServer, watched
from fedkd.methods.fedmd import FedMD
from fedkd.reports.live.server import LiveServer, PageSource
from fedkd.runs.under_way import live

MARKUP = '<img src="x" onerror="document.title = 1">'
RUN = 2**64 - 3  # more digits than JavaScript's numbers have
GO_ON = Event()
HEARD = """
window.told = [];
const news = document.getElementById('news');
new MutationObserver(() => told.push(news.textContent)).observe(news, {childList: true});
"""


class Held(FedMD):
    """FedMD whose client 2 fails in round 2, with markup for words, while client 1 trains on."""

    def client(self, ctx, broadcast):
        if (ctx.round, ctx.client) == (2, 1):
            with ctx.clock.phase("train"):
                GO_ON.wait(PATIENCE)
        if (ctx.round, ctx.client) == (2, 2):
            raise RuntimeError(MARKUP)
        return super().client(ctx, broadcast)


class Page:
    """The page in a browser, served by a server of its own."""

    def __init__(self, driver, source):
        self.driver = driver
        self.server = LiveServer(source)
        Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def open(self):
        self.driver.get(self.server.url)

    def text(self, id):
        return self.driver.find_element("id", id).text

    def wait(self, condition):
        return WebDriverWait(self.driver, PATIENCE, poll_frequency=0.1).until(lambda _: condition())

    def phase(self, name):
        return self.driver.find_element("css selector", f"#phases .{name}").text.split("\n")

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def driver(tmp_path):
    with browser(tmp_path / "profile") as chrome:
        yield chrome
    GO_ON.set()  # whatever failed, nobody waits on


@NEEDS_BROWSER
@pytest.mark.slow
def test_a_run_is_followed_to_its_end_and_a_deployment_is_stopped(
    driver, rows, tmp_path, monkeypatch
):
    monkeypatch.setattr(live, "EVERY", 0.05)
    folder, source = (
        tmp_path / "run",
        watched(tmp_path / "run", AskedServer(tmp_path / "run", None)),
    )
    page = Page(driver, source)
    resize(driver, 360)
    page.open()
    page.wait(lambda: "no run has begun" in page.text("says"))
    driver.execute_script(HEARD)

    changes = {"rounds": 3, "method.name": "test_watch_browser:Held"}
    experiment = tiny.experiment(rows, changes)
    run = Thread(target=simulate, args=(experiment, folder), daemon=True)
    run.start()
    page.wait(lambda: page.text("rounds") == "1 of 3 rounds done" and page.phase("lost")[1:])
    page.wait(lambda: len(page.phase("answered")) == 3)
    assert page.text("says") == "Running: round 2 of 3."
    assert page.text("h-clients") == "Clients of round 2"
    assert page.phase("training") == ["training: 1", "client 1", "train"]
    assert page.phase("answered") == ["answered: 2", "client 0", "client 3"]
    assert page.phase("lost") == ["lost: 1", "client 2", f"RuntimeError: {MARKUP}"]
    assert page.text("failures") == f"Round 2, client 2\nRuntimeError: {MARKUP}"
    # The browser tells of a change a little after it is there.
    left_out = f"client 2 is left out of round 2: RuntimeError: {MARKUP}."
    page.wait(lambda: left_out in " ".join(driver.execute_script("return told")))
    assert "Round 1 of 3 is over: student " in " ".join(driver.execute_script("return told"))
    assert page.text("end").startswith("Expected end: about ")
    assert "NO DP" in page.text("tiles")
    for width in (360, 1280):
        resize(driver, width)
        assert overflow(driver) == 0
    prefer(driver, prefers_color_scheme="dark")
    assert axe(driver) == []

    GO_ON.set()
    page.wait(lambda: "Ended after three rounds." in page.text("says"))
    run.join()
    assert page.text("rounds") == "3 of 3 rounds done"
    assert not driver.find_element("id", "clients").is_displayed()
    assert len(driver.find_elements("css selector", "#chart circle")) == 3
    assert len(driver.find_elements("css selector", "#table tr")) == 3
    assert not driver.find_element("id", "stop").is_displayed()
    prefer(driver, prefers_color_scheme="light")
    resize(driver, 360)
    assert overflow(driver) == 0
    assert axe(driver) == []
    assert driver.find_elements("css selector", "main img") == []
    asked = {url for url in requests(driver) if url.startswith("http")}
    assert asked == {page.server.url, f"{page.server.url}state"}
    driver.find_element("id", "report").click()
    page.wait(lambda: "test_watch_browser:Held" in driver.find_element("tag name", "main").text)
    page.close()

    stopped, shown = [], source.look()
    shown["run"] |= {"kind": "deployment", "stop": str(RUN), "report": False}
    page = Page(
        driver, PageSource(lambda: shown, lambda: None, lambda n: stopped.append(n) or "told")
    )
    page.open()
    stop, sure = (driver.find_element("id", id) for id in ("stop", "sure"))
    page.wait(stop.is_displayed)
    stop.send_keys(Keys.ENTER)
    assert sure.is_displayed()
    assert driver.switch_to.active_element.text == "Let it run"
    assert axe(driver) == []
    assert overflow(driver) == 0
    driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    page.wait(lambda: not sure.is_displayed())
    assert stopped == []
    stop.click()
    driver.find_element("id", "yes").click()
    page.wait(lambda: page.text("stop-says") == "told")
    assert stopped == [RUN]
    assert driver.get_log("browser") == []
    page.close()
    page.wait(driver.find_element("id", "lost-touch").is_displayed)
    assert "start it again" in page.text("lost-touch")
