"""Faces of people whom no model learned from: what does a small student gain from a teacher?

    FEDKD_DATA=... python simulations/faces.py [--seeds 0 1 2]     # tables, some ten minutes of CPU
    FEDKD_DATA=... python simulations/faces.py --write FOLDER      # the folders of pictures alone

The pictures are the ORL database of faces: 40 people, 10 pictures of 92x112 pixels each, AT&T
Laboratories Cambridge. A seed draws the 10 people who are tested on and whom no party ever trains
on; with so few a figure is coarse, so each seed has other ones.

`configs/faces.toml`: a teacher that sees pictures whole, and a student of a tenth of its parameters
that sees 46x56 pixels; 30 people train both. `configs/faces_federated.toml`: three clients of six
people each, and a proxy set of 12 other people, of whom nobody says who is who.
"""

import os
import shutil
from pathlib import Path

import numpy as np

CONFIGS = Path(__file__).parents[1] / "configs"
TESTED, PUBLIC, CLIENTS = 10, 12, 3
SHOWN = ("tar_at_far_1e_2", "tar_at_far_1e_3", "rank_1")
FORMS = {
    "its likelihood's divergence": [],
    "angles of embeddings": ["knowledge=[{name='angular'}]"],
    "relations": ["knowledge=[{name='rkd', student='classifier', teacher='classifier'}]"],
}
"""What is passed on, as changes of `configs/faces.toml`."""
METHODS = ("fedmd", "fedavg", "feddf")


def drawn(seed: int) -> tuple[list[Path], list[Path]]:
    """The folders of those who train and of those who are tested, at random."""
    source = Path(os.environ.get("FEDKD_DATA", "")) / "orl_faces"
    people = sorted(each for each in source.glob("s*") if each.is_dir())
    if not people:
        raise SystemExit(
            f"{source}: no people; set FEDKD_DATA to the folder above orl_faces/ (s1/1.pgm ...)"
        )
    order = np.random.default_rng(seed).permutation(len(people)).tolist()
    ordered = [people[number] for number in order]
    return ordered[TESTED:], ordered[:TESTED]


def write(folder: Path, seed: int) -> None:
    """`faces/` for one party, `faces_of_clients/` and `faces_public/` for a federation."""
    training, testing = drawn(seed)
    public, private = training[:PUBLIC], training[PUBLIC:]
    for name in ("faces", "faces_of_clients"):
        for person in testing:
            shutil.copytree(person, folder / name / "test" / person.name)
    for person in training:
        shutil.copytree(person, folder / "faces" / "train" / person.name)
    for number, person in enumerate(private):
        client = f"client{number % CLIENTS}"
        shutil.copytree(person, folder / "faces_of_clients" / "train" / client / person.name)
    (folder / "faces_public").mkdir(parents=True)
    for person in public:
        for picture in sorted(person.iterdir()):
            shutil.copy(picture, folder / "faces_public" / f"{person.name}-{picture.name}")
