"""The pictures of README and the documents: a round, a report and the live view.

    python simulations/pictures.py [round report live]

Writes into docs/pictures. The diagram of a round is drawn here; the other two are photographs of
what fedkd makes of its packaged experiment `demo`, taken with Chromium (needs chromium and
chromedriver on the PATH). Each is smaller than 150 kB.
"""

import argparse
import base64
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.sax.saxutils import escape

from PIL import Image
from selenium import webdriver
from selenium.webdriver.support.wait import WebDriverWait

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
LARGEST = 150_000
WIDTH = 1080  # CSS pixels of a photograph

FILLS = {
    "paper": ("#ffffff", "#14171e"),
    "box": ("#f6f5fa", "#1f2330"),
    "private": ("#fdf0ec", "#35201d"),
    "public": ("#eef5ee", "#1a2b1e"),
    "ink": ("#1d2230", "#e6e8ee"),
    "muted": ("#5b6272", "#a6adbd"),
    "teacher": ("#b34d00", "#f29a5c"),
    "student": ("#0067a3", "#62b5ee"),
    "warn": ("#9c1c12", "#f0877a"),
    "good": ("#2f6b3a", "#86c893"),
    "step": ("#4a4183", "#a59de6"),
    "number": ("#ffffff", "#14171e"),
}
LINES = {
    "paper": ("#d9dce3", "#363c4a"),
    "box": ("#b9b3d3", "#5f5899"),
    "private": ("#d8a597", "#8a4a40"),
    "public": ("#9cc3a3", "#3f7049"),
    **{f"{look}-line": FILLS[look] for look in ("muted", "teacher", "student", "warn", "good")},
}
"""Colours by look, on a light and on a dark ground of the picture's own: legible anywhere."""


def style() -> str:
    """The style sheet of the diagram."""

    def rules(which: int) -> str:
        fills = (f".{look} {{ fill: {both[which]} }}" for look, both in FILLS.items())
        lines = (f".{look} {{ stroke: {both[which]} }}" for look, both in LINES.items())
        return "\n".join([*fills, *lines])

    dark = f"@media (prefers-color-scheme: dark) {{\n{rules(1)}\n}}"
    return f"path[stroke-width] {{ fill: none }}\n{rules(0)}\n{dark}"


def text(
    x: float, y: float, words: str, look: str, *, size: int = 15, anchor: str = "start"
) -> str:
    """A line of text; a part of it may be bold: `**so** much`."""
    shown = re.sub(r"\*\*(.+?)\*\*", r'<tspan font-weight="650">\g<1></tspan>', escape(words))
    where = f'x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text {where} class="{look}">{shown}</text>'


def box(x: float, y: float, width: float, height: float, look: str) -> str:
    """A box with round corners."""
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" class="{look}"/>'


def arrow(path: str, look: str, dashes: str = "none") -> str:
    """An arrow along a path, in the colour of a look."""
    end = f'marker-end="url(#{look}-end)" stroke-dasharray="{dashes}"'
    return f'<path d="{path}" class="{look}-line" stroke-width="2" {end}/>'


def arrow_end(look: str) -> str:
    """The head of the arrows of a look."""
    return (
        f'<marker id="{look}-end" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" '
        f'markerHeight="8" markerUnits="userSpaceOnUse" orient="auto">'
        f'<path d="M0 0 L10 5 L0 10 z" class="{look}"/></marker>'
    )


def step(x: float, y: float, number: int) -> str:
    """A step's number in a disc."""
    disc = f'<circle cx="{x}" cy="{y}" r="13" class="step"/>'
    return disc + text(x, y + 5, f"**{number}**", "number", anchor="middle")


def client(top: float, name: str, data: str, model: str) -> list[str]:
    """A client: its private data, and the teacher that learns from it."""
    middle = top + 63
    return [
        box(28, top, 396, 104, "box"),
        text(44, top + 24, f"**{name}**", "ink"),
        box(44, middle - 26, 150, 56, "private"),
        text(119, middle - 3, "private data", "warn", anchor="middle"),
        text(119, middle + 17, data, "muted", size=13, anchor="middle"),
        arrow(f"M198 {middle + 2} H 254", "muted"),
        box(262, middle - 26, 146, 56, "box"),
        text(335, middle - 3, "**teacher**", "teacher", anchor="middle"),
        text(335, middle + 17, model, "muted", size=13, anchor="middle"),
        arrow(f"M412 {middle + 2} H 612", "teacher"),
    ]


def round_diagram() -> str:
    """Clients with teachers on the left, the wire, and the server with its student on the right."""
    title = "One round of federated distillation"
    about = (
        "Three clients each train a teacher of their own kind on private data that never leaves "
        "them. Each teacher answers the same public proxy set; only these answers cross the wire. "
        "The server averages them, its student learns from the mean, and what was learned goes "
        "back to begin the next round."
    )
    ends = "".join(map(arrow_end, ("muted", "teacher", "student", "good")))
    wall = '<path d="M514 116 V 478" class="warn-line" stroke-width="2" stroke-dasharray="3 7"/>'
    parts = [
        box(0.5, 0.5, 959, 571, "paper"),
        box(28, 26, 904, 62, "public"),
        text(48, 52, "**Proxy set**: public inputs, the same for all; no labels needed", "good"),
        text(48, 74, "All that teachers and student share. Some methods make inputs up instead.",
             "muted", size=13),
        *client(126, "Client 1", "images, labels", "an mlp"),
        *client(250, "Client 2", "of other classes", "a small CNN"),
        *client(374, "Client 3", "fewer records", "a ResNet"),
        wall,
        text(504, 500, "← data and teachers stay here", "warn", size=13, anchor="end"),
        arrow("M335 90 V 120", "good", "3 4"), arrow("M776 90 V 120", "good", "3 4"),
        text(349, 111, "asked", "good", size=13), text(790, 111, "learned from", "good", size=13),
        text(470, 212, "answers", "teacher", size=13, anchor="middle"),
        text(558, 212, "with noise,", "muted", size=13, anchor="middle"),
        text(558, 228, "if private", "muted", size=13, anchor="middle"),
        box(620, 126, 312, 352, "box"),
        text(636, 150, "**Server**", "ink"),
        box(640, 180, 272, 56, "box"),
        text(776, 204, "**mean of the answers**", "teacher", anchor="middle"),
        text(776, 224, "what the teachers agree on", "muted", size=13, anchor="middle"),
        arrow("M776 240 V 336", "muted"),
        text(800, 296, "**distillation**", "ink", size=14),
        box(640, 344, 272, 62, "box"),
        text(776, 370, "**student**", "student", anchor="middle"),
        text(776, 391, "one model, of its own kind", "muted", size=13, anchor="middle"),
        text(776, 446, "the result, after the last round", "muted", size=13, anchor="middle"),
        arrow("M776 482 V 528 H 226 V 488", "student", "7 5"),
        step(226, 163, 1), step(470, 172, 2), step(640, 208, 3), step(776, 290, 4),
        step(500, 528, 5),
        text(524, 551, "**what was learned** begins the next round", "student", size=14),
    ]  # fmt: skip
    body = "\n".join(parts)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 572" width="960" height="572" '
        'role="img" aria-labelledby="title about" '
        'font-family="system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif">\n'
        f'<title id="title">{title}</title>\n<desc id="about">{about}</desc>\n'
        f"<style>{style()}</style>\n<defs>{ends}</defs>\n{body}\n</svg>\n"
    )


@contextmanager
def chromium(scheme: str = "light") -> Iterator[webdriver.Chrome]:
    """A browser as wide as a picture."""
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium") or ""
    os.environ["SE_OFFLINE"] = "true"
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    size = {"width": WIDTH, "height": 900, "deviceScaleFactor": 1.5, "mobile": False}
    wanted = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})
    try:
        yield driver
    finally:
        driver.quit()


def photograph(driver: webdriver.Chrome, height: int, name: str) -> None:
    """The top of the page at which the browser is, in few colours."""
    clip = {"x": 0, "y": 0, "width": WIDTH, "height": height, "scale": 1}
    shot = driver.execute_cdp_cmd(
        "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip}
    )
    picture = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
    file = io.BytesIO()
    picture.quantize(96, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    keep(name, file.getvalue())


def keep(name: str, content: bytes) -> None:
    """Write a picture, unless it is too large."""
    if len(content) > LARGEST:
        sys.exit(f"{name} has {len(content):,} bytes: expected at most {LARGEST:,}")
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / name).write_bytes(content)
    print(f"{PICTURES / name}: {len(content):,} bytes")


def demo(folder: Path, *arguments: str) -> list[str]:
    """The command that runs the packaged experiment."""
    return [sys.executable, "-m", "fedkd", "simulate", "demo", "--out", str(folder), *arguments]


def draw_round() -> None:
    """A round of federated distillation."""
    keep("round.svg", round_diagram().encode())


def photograph_report() -> None:
    """The report of the demo, on a light and on a dark ground."""
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "demo"
        subprocess.run(demo(run), check=True, stdout=subprocess.DEVNULL)
        for scheme in ("light", "dark"):
            with chromium(scheme) as driver:
                driver.get((run / "report.html").as_uri())
                photograph(driver, 1160, f"report-{scheme}.png")


def photograph_live_view() -> None:
    """The page of `fedkd watch` amid the demo, on both grounds."""
    with tempfile.TemporaryDirectory() as place:
        run = Path("runs") / "demo"
        watch = [sys.executable, "-m", "fedkd", "watch", str(run), "--no-browser"]
        with (
            subprocess.Popen(watch, cwd=place, stdout=subprocess.PIPE, text=True) as page,
            subprocess.Popen(demo(run), cwd=place, stdout=subprocess.DEVNULL) as done,
        ):
            try:
                if page.stdout is None or not (url := _address(page.stdout)):
                    sys.exit("fedkd watch named no address")
                for scheme, begun in (("light", 2), ("dark", 3)):
                    with chromium(scheme) as driver:
                        driver.get(url)
                        WebDriverWait(driver, 600, 0.05).until(
                            lambda it, begun=begun: (
                                len(it.find_elements("css selector", "#table tr")) >= begun
                            )
                        )
                        photograph(driver, 1180, f"live-{scheme}.png")
            finally:
                page.terminate()
                done.terminate()


def _address(lines: Iterable[str]) -> str:
    """What `fedkd watch` says it serves its page at."""
    found = (re.search(r"http://\S+", line) for line in lines)
    return next((each[0] for each in found if each), "")


PAINTERS = {"round": draw_round, "report": photograph_report, "live": photograph_live_view}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pictures", nargs="*", default=list(PAINTERS), choices=PAINTERS)
    for each in parser.parse_args().pictures:
        PAINTERS[each]()
