"""Crowns of trees from the air: what is a student without labels worth, and one of two scenes?

    FEDKD_DATA=... python simulations/detection.py [--seeds 0 1 2]      # a table, in minutes
    FEDKD_DATA=... python simulations/detection.py --write FOLDER       # the pictures alone

Three strips of one large image (YELL-528000 of deepforest 2.1.0, MIT): the left 30% is the site
`near`, the next 30% the proxy set, whose boxes nobody is given, the right 40% the test. The site
`far` is another scene, YELL-541000. Training and proxy squares of 128 pixels overlap by half, test
squares do not. A box of which less than half is in a square is none of it.
"""

import argparse
import os
import statistics
import tempfile
import tomllib
from pathlib import Path

from PIL import Image

from fedkd import config
from fedkd.data.readers import boxes, pictures
from fedkd.jobs.simulate import simulate

CONFIG = Path(__file__).parents[1] / "configs" / "detection.toml"
NEAR, FAR = "2019_YELL_2_528000_4978000_image_crop2", "2019_YELL_2_541000_4977000_image_crop"
SIDE = 128
FIGURES = ("ap40", "ap50", "ap")
WAYS = {
    "near alone, once": ("alone", True, "mean"),
    "both, once, plain mean": ("sites", True, "mean"),
    "both, once, the sure weigh more": ("sites", True, "certain"),
    "both, in rounds, plain mean": ("sites", False, "mean"),
    "both, in rounds, the sure weigh more": ("sites", False, "certain"),
}
"""By name the folder of sites, whether all epochs are in one round of `fedmd`, and what answers
come to."""


def save(folder: Path, scene: str, columns: tuple[float, float], step: int, *, boxed: bool) -> None:
    """The squares of a scene's strip, with Pascal VOC's boxes of each."""
    source = Path(os.environ.get("FEDKD_DATA", "")) / "crowns"
    if not source.is_dir():
        raise SystemExit(f"{source}: not found; set FEDKD_DATA to the folder above crowns/")
    image = pictures.read(source / f"{scene}.png", plain=True)
    found = boxes.voc((source / f"{scene}.xml").read_text(encoding="utf-8"))
    held = boxes.targets([each._replace(name="crown") for each in found], ["crown"])
    left, right = (int(share * image.shape[1]) for share in columns)
    for kind in ("images", "boxes"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for y in range(0, image.shape[0] - SIDE + 1, step):
        for x in range(left, right - SIDE + 1, step):
            window = pictures.Window(y, x, SIDE, y, x)
            name = f"{y:04d}-{x:04d}"
            square = window.of(image, beyond=0)
            Image.fromarray(square).save(folder / "images" / f"{name}.png")
            if boxed:
                (folder / "boxes" / f"{name}.xml").write_text(voc(boxes.cut(held, window)))


def voc(held: boxes.Array) -> str:
    """Boxes as Pascal VOC writes them, pixels from 1."""
    corners = ("xmin", "ymin", "xmax", "ymax")
    objects = []
    for _, left, top, right, bottom in held.tolist():
        numbers = zip(corners, (left + 1, top + 1, right, bottom), strict=True)
        inner = "".join(f"<{corner}>{number:g}</{corner}>" for corner, number in numbers)
        objects.append(f"<object><name>crown</name><bndbox>{inner}</bndbox></object>")
    return f"<annotation>{''.join(objects)}</annotation>"


def write(folder: Path) -> None:
    """The squares of both sites, of the site alone, of the proxy set and of the test."""
    for sites in ("sites", "alone"):
        save(folder / sites / "train/near", NEAR, (0, 0.3), SIDE // 2, boxed=True)
        save(folder / sites / "test", NEAR, (0.6, 1), SIDE, boxed=True)
    save(folder / "sites/train/far", FAR, (0, 1), SIDE // 2, boxed=True)
    save(folder / "proxy", NEAR, (0.3, 0.6), SIDE // 2, boxed=False)


def run(name: str, seed: int, folder: Path) -> dict[str, float]:
    """Of one run the figures of its student, and of the best of its teachers."""
    sites, once, together = WAYS[name]
    table = tomllib.loads(CONFIG.read_text(encoding="utf-8"))
    table["seed"], table["task"]["together"] = seed, together
    table["data"]["name"] = str(folder / sites)
    table["data"]["public"]["source"] = str(folder / "proxy")
    if once:
        table["method"]["name"] = "fedmd"
        for training in (table["clients"]["training"], table["method"]["student"]):
            training["epochs"] *= table["rounds"]
        table["rounds"] = 1
    own = config.parse(table)
    summary = simulate(own, folder / f"{list(WAYS).index(name)}-{seed}")
    teachers, student = summary["teachers"], summary["student"]
    best = {f"best teacher: {figure}": teachers[f"best_{figure}"] for figure in FIGURES}
    return best | {f"student: {figure}": student[figure] for figure in FIGURES}


def main() -> None:
    """Run everything and print the table, or write the pictures alone."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", choices=list(WAYS), nargs="+", default=list(WAYS))
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    if given.write is not None:
        write(given.write)
        return
    with tempfile.TemporaryDirectory() as temporary:
        write(folder := Path(temporary))
        for name in given.only:
            runs = [run(name, seed, folder) for seed in given.seeds]
            if name == given.only[0]:
                print(f"| | {' | '.join(runs[0])} |\n|---|{'---|' * len(runs[0])}")
            cells = (
                f"{statistics.mean(each):.3f} ({', '.join(f'{value:.3f}' for value in each)})"
                for each in zip(*(found.values() for found in runs), strict=True)
            )
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
