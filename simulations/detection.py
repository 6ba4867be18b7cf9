"""Crowns of trees from the air: what is a student without labels worth, and one of two scenes?

    FEDKD_DATA=... python simulations/detection.py [--seeds 0 1 2]      # a table, in half an hour
    FEDKD_DATA=... python simulations/detection.py --write FOLDER       # the pictures alone

Three strips of one large image (YELL-528000 of deepforest 2.1.0, MIT): the left 30% is the site
`near`, the next 30% the proxy set, whose boxes nobody is given, the right 40% the test. The site
`far` is another scene, YELL-541000. Of squares of 128 pixels those of training overlap by half,
those of the proxy set by three quarters, those of the test not at all. A box of which less than
half is in a square is none of it.
"""

import argparse
import os
import statistics
import tempfile
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from fedkd import config, rng, tasks
from fedkd.config import Optimisation, validate
from fedkd.data.readers.pictures import boxes, picture
from fedkd.exchange.codec import decode
from fedkd.federation import engines
from fedkd.federation.prepare import PreparedExperiment, prepare
from fedkd.jobs.simulate import simulate_world
from fedkd.learning import consensus, evaluate, offline
from fedkd.learning.familiarity import familiarity
from fedkd.tasks.detection import Together

CONFIG = Path(__file__).parents[1] / "fedkd" / "configs" / "detection.toml"
NEAR, FAR = "2019_YELL_2_528000_4978000_image_crop2", "2019_YELL_2_541000_4977000_image_crop"
SIDE = 128
STEP = SIDE // 2
PROXY_STEP = SIDE // 4
MIXES: tuple[Together, ...] = ("mean", "certain", "boxes")


def save(folder: Path, scene: str, columns: tuple[float, float], step: int, *, boxed: bool) -> None:
    """The squares of a scene's strip, with Pascal VOC's boxes of each."""
    source = Path(os.environ.get("FEDKD_DATA", "")) / "crowns"
    if not source.is_dir():
        raise SystemExit(f"{source}: not found; set FEDKD_DATA to the folder above crowns/")
    image = picture.read(source / f"{scene}.png", plain=True)
    found = boxes.voc((source / f"{scene}.xml").read_text(encoding="utf-8"))
    held = boxes.targets([each._replace(name="crown") for each in found], ["crown"])
    left, right = (int(share * image.shape[1]) for share in columns)
    for kind in ("images", "boxes"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for y in range(0, image.shape[0] - SIDE + 1, step):
        for x in range(left, right - SIDE + 1, step):
            window = picture.Window(y, x, SIDE, y, x)
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
    """The squares of both sites, of the proxy set and of the test."""
    save(folder / "sites/train/near", NEAR, (0, 0.3), STEP, boxed=True)
    save(folder / "sites/train/far", FAR, (0, 1), STEP, boxed=True)
    save(folder / "sites/test", NEAR, (0.6, 1), SIDE, boxed=True)
    save(folder / "proxy", NEAR, (0.3, 0.6), PROXY_STEP, boxed=False)


def federated(folder: Path, seed: int) -> tuple[PreparedExperiment, nn.Module, list[nn.Module]]:
    """A run of the configuration: what was prepared, its student, the teachers of near and far."""
    place = [f"data.name={folder / 'sites'}", f"data.public.source={folder / 'proxy'}"]
    found = prepare(config.load(CONFIG, [*place, f"seed={seed}"]))
    simulate_world(found, out := folder / f"run-{seed}")
    kept = [engines.teacher(found, out / "checkpoints/clients", each) for each in range(2)]
    far, near = (each for each in kept if each is not None)  # in the order of their names
    student = found.setting.build(found.experiment.student.model, purpose="student")
    student.load_state_dict(decode((out / "student.safetensors").read_bytes()))
    return found, student, [near, far]


def taught(found: PreparedExperiment, answers: Tensor) -> nn.Module:
    """A student of answers on the proxy set, as `fedmd` would teach it."""
    experiment, likelihood = found.experiment, found.setting.task.likelihood
    model = found.setting.build(experiment.student.model, purpose="student model")
    offline.distil(
        model,
        found.setting.proxy,
        answers,
        partial(likelihood.divergence, temperature=1.0),
        validate(Optimisation, experiment.method.parameters["student"]),
        rng.stream(experiment.seed, purpose="student batches"),
    )
    return model


def study(folder: Path, seed: int) -> dict[str, list[float]]:
    """AP at the overlaps of the configuration, of all models; how familiar near and far are."""
    found, student, teachers = federated(folder, seed)
    test, proxy, scores = found.data.test, found.setting.proxy, found.setting.task.scores

    def figures(model: nn.Module | Tensor) -> list[float]:
        held = evaluate.score(model, test, scores)
        return [held[score.figure] for score in scores]

    table = {"teacher near": figures(teachers[0]), "teacher far": figures(teachers[1])}
    asked = torch.stack([evaluate.answers(each, test.x) for each in teachers])
    for mix in MIXES:
        choice = found.experiment.task.model_copy(update={"together": mix})
        together = tasks.build(choice, inputs=found.setting.shape, names=found.data.class_names)
        table[f"both teachers, `{mix}`"] = figures(consensus.of_task(together.likelihood)(asked))
    weights = [
        familiarity(own.x, proxy, rng.stream(seed, purpose="familiarity"))
        for own in reversed(found.data.clients)
    ]
    table["familiarity of near, of far"] = weights
    table["both teachers, familiar"] = figures(consensus.weighted(asked, torch.tensor(weights)))
    table["student of near alone"] = figures(taught(found, evaluate.answers(teachers[0], proxy)))
    table["student of both, familiar"] = figures(student)
    return table


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
        found = [study(Path(temporary), seed) for seed in given.seeds]
    print(f"| AP at .4, .5 | {' | '.join(f'seed {seed}' for seed in given.seeds)} | mean |")
    print(f"|---|{'---|' * (len(given.seeds) + 1)}")
    for name in found[0]:
        each = [table[name] for table in found]
        means = [statistics.mean(figure) for figure in zip(*each, strict=True)]
        cells = [" ".join(f"{value:.3f}" for value in row) for row in (*each, means)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
