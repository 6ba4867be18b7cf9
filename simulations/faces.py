"""Faces of people whom no model learned from: what does a small student gain from a teacher?

    FEDKD_DATA=... python simulations/faces.py [--seeds 0 1 2]     # two tables, in minutes
    FEDKD_DATA=... python simulations/faces.py --write FOLDER      # the folders of pictures alone

The pictures are the ORL database of faces: 40 people, 10 pictures of 92x112 pixels each, AT&T
Laboratories Cambridge. A seed draws the 10 people who are tested on and whom no party ever trains
on; with so few a figure is coarse, so each seed has others.

`faces.toml`: a teacher that sees pictures whole, and a student of a tenth of its parameters
that sees 46x56 pixels; 30 people train them. `faces_federated.toml`: three clients of six
people each, and a proxy set of 12 other people, of whom nobody says who is who.
"""

import argparse
import os
import shutil
import statistics
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedkd import config
from fedkd.jobs.distil import distil
from fedkd.jobs.simulate import simulate

CONFIGS = Path(__file__).parents[1] / "fedkd" / "configs"
TESTED, PUBLIC, CLIENTS = 10, 12, 3
SHOWN = ("tar_at_far_1e_2", "tar_at_far_1e_3", "rank_1")
Figures = Mapping[str, Any]


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
    for person in testing:
        copy(person, folder / "faces" / "test" / person.name)
        copy(person, folder / "faces_of_clients" / "test" / person.name)
    for person in training:
        copy(person, folder / "faces" / "train" / person.name)
    for number, person in enumerate(private):
        client = f"client{number % CLIENTS}"
        copy(person, folder / "faces_of_clients" / "train" / client / person.name)
    for person in public:
        copy(person, folder / "faces_public", prefix=f"{person.name}-")


def copy(person: Path, folder: Path, *, prefix: str = "") -> None:
    """A person's pictures; some have others beside them, of other kinds, that are not the set's."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture in sorted(person.glob("*.pgm")):
        shutil.copy(picture, folder / f"{prefix}{picture.name}")


def one_party(seed: int, folder: Path) -> dict[str, Figures]:
    """A distillation: figures of the teacher, of the student alone, and of the student."""
    changes = [f"seed={seed}", f"data.name={folder / 'faces'}", "plain=false"]
    told = config.load_distillation(CONFIGS / "faces.toml", changes)
    summary = distil(told, folder / "distilled", lambda *_: None)
    # A student that imitates nobody learns from the labels alone, whatever its teacher is.
    nobody = ["way.imitation=0", "teachers.0.training.epochs=1"]
    alone = config.load_distillation(CONFIGS / "faces.toml", [*changes, *nobody])
    return {
        "teacher": summary["teachers"][0],
        "student alone": distil(alone, folder / "alone", lambda *_: None)["student"],
        "student distilled": summary["student"],
    }


def several_parties(seed: int, folder: Path) -> dict[str, Figures]:
    """A federation: the mean of the clients' own models, the student, one model of all records."""
    changes = [
        f"seed={seed}",
        f"data.name={folder / 'faces_of_clients'}",
        f"data.public.source={folder / 'faces_public'}",
    ]
    file = CONFIGS / "faces_federated.toml"
    summary = simulate(config.load(file, changes), folder / "federated")
    pooled = [*changes, "method.name=centralised"]
    return {
        "clients' own": {name: summary["teachers"][f"mean_{name}"] for name in SHOWN},
        "student": summary["student"],
        "pooled": simulate(config.load(file, pooled), folder / "pooled")["student"],
    }


def shown(values: Iterable[float]) -> str:
    """Figures of several seeds, as their mean and standard deviation."""
    each = list(values)
    return f"{statistics.mean(each):.3f} ± {statistics.stdev(each) if len(each) > 1 else 0:.3f}"


def table(title: str, runs: Sequence[Mapping[str, Figures]]) -> None:
    """Print figures of all seeds as a table of Markdown, and each seed's headline."""
    print(f"\n| {title} | {' | '.join(SHOWN)} | {SHOWN[0]} by seed |")
    print("|---|" + "---|" * (len(SHOWN) + 1))
    for who in runs[0]:
        cells = [shown(run[who][figure] for run in runs) for figure in SHOWN]
        by_seed = ", ".join(f"{run[who][SHOWN[0]]:.3f}" for run in runs)
        print(f"| {who} | {' | '.join(cells)} | {by_seed} |", flush=True)


def main() -> None:
    """Run everything and print the tables, or write the folders alone."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    if given.write is not None:
        write(given.write, given.seeds[0])
        return
    parties: list[dict[str, Figures]] = []
    federations: list[dict[str, Figures]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for seed in given.seeds:
            folder = Path(temporary) / str(seed)
            write(folder, seed)
            parties.append(one_party(seed, folder))
            federations.append(several_parties(seed, folder))
    table("one party", parties)
    table("three clients", federations)


if __name__ == "__main__":
    main()
