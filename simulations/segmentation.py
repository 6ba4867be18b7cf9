"""Federated segmentation of nuclei from two microscopes: what is a student without labels worth?

    FEDKD_DATA=... python simulations/segmentation.py [--seeds 0 1 2]      # a table, in minutes
    FEDKD_DATA=... python simulations/segmentation.py --write FOLDER       # the pictures alone

Site A is the left three quarters of one image of 512x512 (StarDist's, BSD-3), site B frames 0 to 2
of a scratch assay of 576x210 (ndev-sampledata's, BSD). Frames 3 to 6 of the assay are the proxy
set, whose masks nobody is given. Tests are the right quarter of A's image and B's frames 8 and 9.
Each image is scaled by its own brightness. A pixel is background, the border of a nucleus, or
inside it.

`segmentation.toml` says how teachers and student learn. Beside the student there are the
clients' teachers, the student's model trained on the labels of both sites together, and likewise
the teachers' model.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from fedkd import config
from fedkd.data.types import Samples
from fedkd.federation import engines
from fedkd.federation.prepare import PreparedExperiment, prepare
from fedkd.jobs.simulate import simulate_world
from fedkd.learning import evaluate
from fedkd.runs import student

CONFIG = Path(__file__).parents[1] / "fedkd" / "configs" / "segmentation.toml"
SITES = ("A", "B")
Pixels = NDArray[Any]


def classes_of(instances: Pixels) -> Pixels:
    """Numbered nuclei (H, W) -> 0 background, 1 border, 2 inside: uint8."""
    padded = np.pad(instances, 1, mode="edge")
    beside = [padded[1:-1, :-2], padded[1:-1, 2:], padded[:-2, 1:-1], padded[2:, 1:-1]]
    border = np.any([other != instances for other in beside], axis=0)
    return np.where(instances == 0, 0, np.where(border, 1, 2)).astype(np.uint8)


def brightness(image: Pixels) -> Pixels:
    """An image as bytes, from its own first to its own 99.8th percentile."""
    low, high = np.percentile(image, [1, 99.8])
    return (255 * np.clip((image - low) / (high - low), 0, 1)).round().astype(np.uint8)


def frames(path: Path) -> list[Pixels]:
    """All frames of a TIFF."""
    with Image.open(path) as file:
        found = []
        for number in range(getattr(file, "n_frames", 1)):
            file.seek(number)
            found.append(np.asarray(file).astype(np.int64))
        return found


def write(folder: Path) -> None:
    """Both sites' pictures and masks, the tests of each, and the proxy set's pictures."""
    source = Path(os.environ.get("FEDKD_DATA", "")) / "nuclei"
    if not source.is_dir():
        raise SystemExit(f"{source}: not found; set FEDKD_DATA to the folder above nuclei/")
    [image], [mask] = (frames(source / name) for name in ("img2d.tif", "mask2d.tif"))
    assay = frames(source / "scratch-assay-labeled-10T-2Ch.tiff")
    image, quarter = brightness(image), image.shape[1] * 3 // 4
    _save(folder / "sites/train/A", "left", image[:, :quarter], mask[:, :quarter])
    _save(folder / "sites/test/A", "right", image[:, quarter:], mask[:, quarter:])
    for part, numbers in (("train", (0, 1, 2)), ("test", (8, 9))):
        for n in numbers:
            _save(folder / f"sites/{part}/B", f"frame{n}", brightness(assay[n]), assay[20 + n])
    (folder / "proxy").mkdir(parents=True, exist_ok=True)
    for n in (3, 4, 5, 6):
        Image.fromarray(brightness(assay[n])).save(folder / "proxy" / f"frame{n}.png")


def _save(folder: Path, name: str, image: Pixels, instances: Pixels) -> None:
    for kind, pixels in (("images", image), ("masks", classes_of(instances))):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / kind / f"{name}.png")


def tests(prepared: PreparedExperiment) -> list[Samples]:
    """The test squares of each site: A's are the first."""
    found = prepared.data.test
    count = 8 * 2  # of 512x128 pixels, in squares of 64
    return [found.subset(torch.arange(count)), found.subset(torch.arange(count, len(found)))]


def run(folder: Path, name: str, seed: int, changes: Sequence[str] = ()) -> dict[str, list[float]]:
    """Of one run, the mIoU on A and on B: of its student, and of its clients' teachers."""
    place = [f"data.name={folder / 'sites'}", f"data.public.source={folder / 'proxy'}"]
    prepared = prepare(config.load(CONFIG, [*place, f"seed={seed}", *changes]))
    everybody = range(prepared.setting.clients)
    simulate_world(prepared, out := folder / f"{name}-{seed}", teachers=everybody)
    (miou,) = prepared.setting.task.scores[:1]

    def figures(model: nn.Module) -> list[float]:
        return [evaluate.score(model, site, [miou])["miou"] for site in tests(prepared)]

    found = {"student": figures(student.load(out).model)}
    for client in everybody:
        teacher = engines.teacher(prepared, out / "checkpoints/clients", client)
        if teacher is not None:
            found[f"teacher {SITES[client]}"] = figures(teacher)
    return found


def study(seed: int, folder: Path) -> dict[str, list[float]]:
    """The mIoU on A and on B of every model, for one seed."""
    found = run(folder, "federated", seed)
    local = ["method.name=centralised", "rounds=1"]
    own = config.load(CONFIG)
    epochs = own.clients.training.epochs * own.rounds
    for name, spec in (("student", own.student.model), ("teacher", own.clients.models[0])):
        model = ", ".join(f"{key} = {value}" for key, value in spec.options.items())
        alone = f"student.model={{ name = '{spec.name}', {model} }}"
        pooled = run(
            folder, f"pooled-{name}", seed, [*local, alone, f"clients.training.epochs={epochs}"]
        )
        found[f"{name}'s model, pooled labels"] = pooled["student"]
    return found


def main() -> None:
    """Run everything and print the table, or write the pictures alone."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    if given.write is not None:
        write(given.write)
        return
    with tempfile.TemporaryDirectory() as temporary:
        write(Path(temporary))
        found = [study(seed, Path(temporary)) for seed in given.seeds]
    print(f"| mIoU on A, B | {' | '.join(f'seed {seed}' for seed in given.seeds)} | mean |")
    print(f"|---|{'---|' * (len(given.seeds) + 1)}")
    for name in found[0]:
        pairs = [each[name] for each in found]
        means = [statistics.mean(site) for site in zip(*pairs, strict=True)]
        cells = [" ".join(f"{value:.3f}" for value in pair) for pair in (*pairs, means)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
