"""Twelve files of real data as their owners may have them: what does `fedkd init` make of each?

    FEDKD_DATA=... python simulations/own_files.py [NAME...] [--short]    # a table, in minutes
    FEDKD_DATA=... python simulations/own_files.py --write FOLDER         # the files alone

Each is written into a folder, `init` guesses an experiment for it, and that experiment is simulated
as it was written; or, shorter, for one round of one epoch. What is ours and not the data's: in
`heart.csv` the words for UCI's codes, the patients' numbers and the days of their visits; in
`diabetes.csv` the patients' numbers; the forms of all.
"""

import argparse
import csv
import datetime
import gzip
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn import datasets

from fedkd import config, tasks
from fedkd.data.looking import Wished
from fedkd.errors import FedkdError
from fedkd.jobs.init import init
from fedkd.jobs.simulate import simulate

SHORT = ("rounds=1", "clients.training.epochs=1")
_WORDS = {
    "sex": {"0": "female", "1": "male"},
    "pain": {"1": "typical", "2": "atypical", "3": "non-anginal", "4": "none"},
    "sugar": {"0": "no", "1": "yes"},
    "ecg": {"0": "normal", "1": "abnormal", "2": "hypertrophy"},
    "angina": {"0": "no", "1": "yes"},
    "slope": {"1": "up", "2": "flat", "3": "down"},
    "thallium": {"3": "normal", "6": "fixed", "7": "reversible"},
}
_TESTS = (
    "age", "sex", "pain", "pressure", "cholesterol", "sugar", "ecg", "rate", "angina", "depression",
    "slope", "vessels", "thallium",
)  # fmt: skip


def source(name: str) -> Path:
    """A file or a folder of $FEDKD_DATA."""
    path = Path(os.environ.get("FEDKD_DATA", "")).resolve() / name
    if not path.exists():
        raise SystemExit(f"{path}: not found; set FEDKD_DATA to the folder above {name}")
    return path


def iris(folder: Path) -> Path:
    """150 flowers: four numbers, and the species in words."""
    found = datasets.load_iris()
    header = [*(name.removesuffix(" (cm)") for name in found.feature_names), "species"]
    species = found.target_names[found.target]
    rows = ([*row, name] for row, name in zip(found.data.tolist(), species, strict=True))
    return _table(folder / "iris.csv", header, rows)


def heart(folder: Path) -> Path:
    """920 patients of four hospitals: numbers, words, cells without a value, dates and numbers."""
    rows: list[list[str]] = []
    for hospital in ("cleveland", "hungarian", "switzerland", "va"):
        text = source(f"heart_disease/processed.{hospital}.data").read_text(encoding="ascii")
        for line in text.split():
            *tests, ill = (cell.removesuffix(".0") for cell in line.split(","))
            words = [
                _WORDS.get(name, {}).get(cell, cell)
                for name, cell in zip(_TESTS, tests, strict=True)
            ]
            visit = datetime.date(1988, 1, 1) + datetime.timedelta(days=7 * len(rows) % 1000)
            patient = f"P{len(rows):04d}"
            diagnosis = "healthy" if ill == "0" else "ill"
            rows.append([patient, visit.isoformat(), hospital, *words, diagnosis])
    header = ["patient", "visit", "hospital", *_TESTS, "diagnosis"]
    return _table(folder / "heart.csv", header, rows)


def wine(folder: Path) -> Path:
    """178 wines of three growers, as a spreadsheet in Europe writes them: 14,23;1,71."""
    found = datasets.load_wine()
    rows = (
        [f"{value:g}".replace(".", ",") for value in row] + [str(kind)]
        for row, kind in zip(found.data.tolist(), found.target.tolist(), strict=True)
    )
    return _table(folder / "wine.csv", [*found.feature_names, "class"], rows, separator=";")


def breast_cancer(folder: Path) -> Path:
    """569 biopsies as Parquet: thirty numbers, and a diagnosis in words."""
    from pyarrow import parquet, table

    found = datasets.load_breast_cancer()
    columns = {name: found.data[:, n] for n, name in enumerate(found.feature_names)}
    path = folder / "breast_cancer.parquet"
    parquet.write_table(table({**columns, "diagnosis": found.target_names[found.target]}), path)
    return path


def diabetes(folder: Path) -> Path:
    """442 patients: ten measurements, and a number to be learned."""
    found = datasets.load_diabetes(scaled=False)
    rows = (
        [number, *row, target]
        for number, (row, target) in enumerate(zip(found.data, found.target, strict=True), start=1)
    )
    return _table(folder / "diabetes.csv", ["id", *found.feature_names, "progression"], rows)


def cifar(_folder: Path) -> Path:
    """6,102 pictures in colours, as an .npz file."""
    return source("cifar10_6k.npz")


def digits(folder: Path) -> Path:
    """3,000 digits of MNIST as a folder of .npy files, shared out to five clients."""
    path = folder / "digits"
    path.mkdir(parents=True)
    for part, name, count in (("train", "train", 2500), ("test", "t10k", 500)):
        images = _idx(f"mnist/{name}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)[:count]
        np.save(path / f"x_{part}.npy", images)
        labels = _idx(f"mnist/{name}-labels-idx1-ubyte.gz", 8)[:count]
        np.save(path / f"y_{part}.npy", labels.astype(np.int64))
    np.save(path / "client_train.npy", np.arange(2500) % 5)
    return path


def faces(_folder: Path) -> Path:
    """The ORL database as it is handed out: a folder a person, and one picture of another kind."""
    return source("orl_faces")


def nuclei(folder: Path) -> Path:
    """Frames of a scratch assay with masks: a folder for each of two sites."""
    frames = _frames(source("nuclei/scratch-assay-labeled-10T-2Ch.tiff"))
    for part, numbers in (("train/a", (0, 1)), ("train/b", (5, 6)), ("test", (9,))):
        for kind, first in (("images", 0), ("masks", 20)):
            path = folder / "nuclei" / part / kind
            path.mkdir(parents=True)
            for number in numbers:
                frame = frames[first + number]
                low, high = np.percentile(frame, [1, 99.8])
                shown = 255 * np.clip((frame - low) / (high - low), 0, 1)
                pixels = (frame > 0) if kind == "masks" else shown
                Image.fromarray(pixels.astype(np.uint8)).save(path / f"frame{number}.png")
    return folder / "nuclei"


def crowns(folder: Path) -> Path:
    """Crowns of trees from the air with Pascal VOC's boxes, large pictures of unlike sizes."""
    scenes = {
        "train": ("2019_YELL_2_541000_4977000_image_crop", "OSBS_029"),
        "test": ("2019_YELL_2_528000_4978000_image_crop2",),
    }
    for part, names in scenes.items():
        for name in names:
            for kind, ending in (("images", "png"), ("boxes", "xml")):
                path = folder / "crowns" / part / kind
                path.mkdir(parents=True, exist_ok=True)
                (path / f"{name}.{ending}").symlink_to(source(f"crowns/{name}.{ending}"))
    return folder / "crowns"


def sentiment(folder: Path) -> Path:
    """3,000 sentences of three sites, whether they praise, and some that all may see."""
    rows = [
        [" ".join(each["text"].split()), each["class"], site]
        for site in ("amazon", "imdb", "yelp")
        for each in json.loads(source(f"sentiment/{site}.json").read_text(encoding="utf-8"))
        if each["text"].strip()
    ]
    _table(folder / "sentiment_public.csv", ["text"], ([row[0]] for row in rows[::3]))
    private = (row for n, row in enumerate(rows) if n % 3)
    return _table(folder / "sentiment.csv", ["text", "class", "site"], private)


def translation(folder: Path) -> Path:
    """Strings of five programs in English and French, and none that all may see."""
    pairs = json.loads(source("enfr/pairs.json").read_text(encoding="utf-8"))
    path = folder / "translation.jsonl"
    lines = (json.dumps({"en": en, "fr": fr, "project": project}) for project, en, fr in pairs)
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


FILES: dict[str, Callable[[Path], Path]] = {
    each.__name__: each
    for each in (
        iris, heart, wine, breast_cancer, diabetes, cifar, digits, faces, nuclei, crowns,
        sentiment, translation,
    )
}  # fmt: skip


def tried(data: Path, folder: Path, *, short: bool) -> dict[str, Any]:
    """What `init` makes of data, and whether that runs as it is.

    Args:
        data: a file or a folder.
        folder: for the experiment and its run.
        short: whether it runs for one round of one epoch.
    """
    began = time.monotonic()
    try:
        done = init(data, folder / f"{data.stem}.toml", Wished())
        guessed = {guess.key: guess.value for guess in done.guesses}
        student = ["method.student.epochs=1"] if "method.student.epochs" in guessed else []
        experiment = config.load(done.file, [*SHORT, *student] if short else ())
        summary = simulate(experiment, folder / f"{data.stem}-run")
    except FedkdError as error:
        return {"runs": False, "said": str(error)}
    score = tasks.headline(experiment.task)
    return {
        "runs": True,
        "task": guessed["task.name"],
        "label": guessed.get("data.label", ""),
        "model": experiment.student.model,
        "score": f"{score.name} {summary['student'][score.figure]:.3g}",
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> None:
    """Try all, or those named, and print a table of Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FILES))
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    if given.write is not None:
        given.write.mkdir(parents=True, exist_ok=True)
        for name in given.names or FILES:
            print(FILES[name](given.write))
        return
    heads = ("file", "task", "label", "student", "runs", "score, or what is missing", "seconds")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}", flush=True)
    for name in given.names or FILES:
        with tempfile.TemporaryDirectory() as temporary, chdir(temporary):
            data = FILES[name](Path())
            row = tried(data, Path(temporary), short=given.short)
            if row["runs"]:
                cells = [row["task"], row["label"], str(row["model"]), "yes", row["score"]]
            else:
                cells = ["", "", "", "no", row["said"].replace(temporary, "")]
            print(f"| {name}: {data.name} | {' | '.join(cells)} | {row.get('seconds', '')} |")
            print(end="", flush=True)


def _table(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[object]], separator: str = ","
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=separator).writerows([header, *rows])
    return path


def _idx(name: str, header: int) -> NDArray[np.uint8]:
    with gzip.open(source(name)) as file:
        return np.frombuffer(file.read(), np.uint8, offset=header)


def _frames(path: Path) -> list[NDArray[Any]]:
    with Image.open(path) as file:
        found = []
        for number in range(getattr(file, "n_frames", 1)):
            file.seek(number)
            found.append(np.asarray(file).astype(np.int64))
        return found


if __name__ == "__main__":
    main()
