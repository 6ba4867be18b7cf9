"""Small files in place of those that the configs in fedkd/configs/ read, by the same names."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]


def study(name: str) -> ModuleType:
    """A script of simulations/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "simulations" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def clothes(path: Path) -> None:
    """120 images of the packaged sample and 30 to test on, at half their size."""
    with np.load(ROOT / "fedkd" / "data" / "sample" / "fashion_mnist.npz") as arrays:
        cut = {name: arrays[name][: 120 if "train" in name else 30] for name in arrays}
    cut |= {name: images[:, ::2, ::2] for name, images in cut.items() if name.startswith("x_")}
    np.savez(path, **cut)


def views(path: Path) -> None:
    """120 records of ten classes and 30 to test on, each seen in six ways."""
    draw = np.random.default_rng(0)
    parts = {f"y_{part}": np.arange(count) % 10 for part, count in (("train", 120), ("test", 30))}
    for view in ("pix", "fou", "zer", "kar", "fac", "mor"):
        for part in ("train", "test"):
            y = parts[f"y_{part}"]
            x = y[:, None] + draw.normal(size=(len(y), 6))
            parts[f"x_{part}.{view}"] = x.astype(np.float32)
    np.savez(path, **parts)


def few_rows(write: Callable[[Path], None], path: Path) -> None:
    """Some 200 of the rows that a study writes."""
    write(path)
    header, *rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([header, *rows[:: max(1, len(rows) // 200)]]), encoding="utf-8")


def nuclei(folder: Path) -> None:
    """Two sites of two squares each, a test of each, and twenty squares without masks."""
    draw = np.random.default_rng(0)
    for part, width in (("train", 128), ("test", 64)):
        for site in "AB":
            pixels = draw.integers(0, 256, (64, width), dtype=np.uint8)
            save(folder / f"sites/{part}/{site}/images/1.png", pixels)
            save(folder / f"sites/{part}/{site}/masks/1.png", pixels // 86)
    save(folder / "proxy/1.png", draw.integers(0, 256, (256, 320), dtype=np.uint8))


def crowns(folder: Path) -> None:
    """Two scenes of two squares with a box each, a test, and twenty squares without boxes."""
    draw = np.random.default_rng(0)
    box = "<xmin>20</xmin><ymin>20</ymin><xmax>44</xmax><ymax>52</ymax>"
    note = f"<annotation><object><name>Tree</name><bndbox>{box}</bndbox></object></annotation>"
    places = ["sites/train/near", "sites/train/far", "sites/test"]
    names = [f"{place}/images/{number}" for place in places for number in range(2)]
    for name in [*names, *(f"proxy/{number}" for number in range(20))]:
        save(folder / f"{name}.png", draw.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for name in names:
        path = folder / f"{name.replace('images', 'boxes')}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(note, encoding="utf-8")


def faces(folder: Path, clients: tuple[str, ...] = ("",)) -> None:
    """Four people of four pictures each, two of them to test on; at every client others."""
    draw = np.random.default_rng(0)
    for client in clients:
        for person in range(4):
            part = "train" if person < 2 else "test"
            place = folder / part / (client if part == "train" else "") / f"s{client}{person}"
            for number in range(4):
                save(place / f"{number}.png", draw.integers(0, 256, (112, 92), dtype=np.uint8))


def faces_public(folder: Path) -> None:
    """Twenty pictures."""
    draw = np.random.default_rng(1)
    for number in range(20):
        save(folder / f"{number}.png", draw.integers(0, 256, (112, 92), dtype=np.uint8))


def pedestrians(path: Path) -> None:
    """Four frames and two to test on, with a box each."""
    draw = np.random.default_rng(0)
    parts = {}
    for part, count in (("train", 4), ("test", 2)):
        parts[f"x_{part}"] = draw.integers(0, 256, (count, 72, 96), dtype=np.uint8)
        parts[f"y_{part}"] = np.tile(np.float32([0, 20, 10, 44, 66]), (count, 1, 1))
    np.savez(path, **parts)


def save(path: Path, pixels: np.ndarray) -> None:
    """A picture, and the folder that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _sentiment(n: int) -> dict[str, object]:
    return {
        "text": f"{['bad', 'good'][n % 2]} food {n}",
        "class": n % 2,
        "site": "ab"[n % 4 // 2],
    }


def _translation(n: int) -> dict[str, object]:
    number, site = n, "ab"[n % 4 // 2]
    return {"en": f"open file {number}", "fr": f"ouvrir le fichier {number}", "project": site}


def _span(n: int) -> dict[str, object]:
    parts = [f"it is {['red', 'green', 'blue'][(n + k) % 3]}." for k in range(3)]
    return {
        "question": f"what is {n % 3}, {n}?",
        "context": " ".join(parts),
        "answer": parts[n % 3],
    }


def text_rows(name: str, count: int = 90) -> list[dict[str, object]]:
    """Records of a table of `simulations/text_tasks.py`, drawn here."""
    drawn: dict[str, Callable[[int], dict[str, object]]] = {
        "answers": lambda n: {"question": f"what is {n}?", "answer": f"it is {n}"},
        "sentiment": _sentiment,
        "spans": _span,
        "translation": _translation,
    }
    return (
        study("text_tasks").tags(count)
        if name == "tags"
        else [drawn[name](n) for n in range(count)]
    )


def texts(name: str) -> Callable[[Path], None]:
    """Ninety records, of which a third is public."""
    return lambda path: study("text_tasks").write(path.parent, name, text_rows(name))


TEXTS = ("answers", "sentiment", "spans", "tags", "translation")

FILES: dict[str, Callable[[Path], None]] = {
    **{f"{name}{part}.csv": texts(name) for name in TEXTS for part in ("", "_public")},
    "clicks.csv": lambda path: study("recommender").write_clicks(path, users=100, items=30),
    "crowns": crowns,
    "diabetes.csv": lambda path: few_rows(study("tasks").write_diabetes, path),
    "digits.csv": lambda path: few_rows(study("tasks").write_digits, path),
    "faces": faces,
    "faces_of_clients": lambda path: faces(path, ("client0", "client1")),
    "faces_public": faces_public,
    "mnist.npz": clothes,
    "nuclei": nuclei,
    "optdigits.npz": clothes,
    "pedestrians.npz": pedestrians,
    "views.npz": views,
}
"""What writes a file or a folder, by its name."""
