"""Teachers of one set of digits, a student for another: what is it worth, and who gains?

    FEDKD_DATA=... python simulations/cross_domain.py [--seeds 0 1 2]  # tables, in minutes
    FEDKD_DATA=... python simulations/cross_domain.py --write FOLDER     # the two files alone

`mnist.npz`: 2,000 + 1,000 of MNIST's digits, scaled down to 14x14. `optdigits.npz`: UCI's optdigits
as scikit-learn brings them, 1,797 of 8x8, enlarged to 10x10 with a margin of 2, as MNIST's have;
1,297 + 500. Teachers learn from labels of the one; the proxy set, without labels, and the test set
are of the other (`data.public.test`).

Of each direction and alignment (`clients.align`): the teachers' own accuracy on the other domain,
and the student's. Under DP models have GroupNorm, and nothing aligns them.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from fedkd import config, data
from fedkd.jobs.simulate import simulate

CONFIG = Path(__file__).parents[1] / "fedkd" / "configs" / "cross_domain.toml"
SETS = ("mnist", "optdigits")
GROUP = "clients.models=[{ name = 'dense-cnn', norm = 'group' }]"
ALIGN: dict[str, list[str]] = {
    "none": [],
    "batch-norm": [],
    "coral": [],
    "GroupNorm": [GROUP],
    "GroupNorm, epsilon 8": [GROUP, "privacy.epsilon=8", "privacy.sample_rate=0.1"],
}


def write_mnist(path: Path) -> None:
    """A part of MNIST, drawn once and for all."""
    if not any(there for _, there in data.locations("mnist")):
        raise SystemExit(
            "mnist: not found; set FEDKD_DATA to the folder above mnist/ (docs/data.md)"
        )
    whole = data.load(config.Data(name="mnist"), seed=0)
    parts = {}
    for part, samples, size in (("train", whole.train, 2000), ("test", whole.test, 1000)):
        draws = torch.Generator().manual_seed(0)
        some = samples.subset(torch.randperm(len(samples), generator=draws)[:size])
        images = F.avg_pool2d(torch.as_tensor(some.x), 2)
        parts |= {f"x_{part}": (images * 255).round().byte().numpy()[:, 0], f"y_{part}": some.y}
    np.savez_compressed(path, **parts)


def write_optdigits(path: Path) -> None:
    """UCI's optdigits, the part that scikit-learn has, with a margin as MNIST's."""
    found = load_digits()
    images = torch.from_numpy(found.images).float()[:, None] / 16
    larger = F.interpolate(images, size=(10, 10), mode="bilinear", align_corners=False)
    x = (F.pad(larger, (2, 2, 2, 2))[:, 0] * 255).round().byte().numpy()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).numpy()
    train, test = order[500:], order[:500]
    y = found.target.astype(np.int64)
    np.savez_compressed(path, x_train=x[train], y_train=y[train], x_test=x[test], y_test=y[test])


FILES = {"mnist.npz": write_mnist, "optdigits.npz": write_optdigits}


def run(folder: Path, name: str, align: str, changes: Sequence[str]) -> tuple[float, float]:
    """The teachers' mean accuracy on the test set, and the student's."""
    experiment = config.load(CONFIG)
    align_by = config.Alignment(name=align) if align in ("batch-norm", "coral") else None
    clients = experiment.clients.model_copy(update={"align": align_by})
    plain = experiment.model_copy(update={"clients": clients})
    file = folder / f"{name}.toml"
    file.write_text(plain.to_toml(), encoding="utf-8")
    summary = simulate(config.load(file, changes), folder / name)
    return summary["teachers"]["mean_accuracy"], summary["student"]["accuracy"]


def shown(values: Iterable[float]) -> str:
    """Figures of several seeds, as their mean and standard deviation."""
    each = list(values)
    return f"{statistics.mean(each):.3f} ± {statistics.stdev(each) if len(each) > 1 else 0:.3f}"


def table(folder: Path, source: str, target: str, seeds: Sequence[int]) -> None:
    """Print one direction as a table of Markdown."""
    ways = [f"data.name={folder / source}.npz", f"data.public.source={folder / target}.npz"]
    print(f"\n| {source} -> {target} | teachers on {target} | student | student above |")
    print("|---|---|---|---|")
    for n, (name, changes) in enumerate(ALIGN.items()):
        found = [
            run(folder, f"{source}-{target}-{n}-{seed}", name, [*ways, *changes, f"seed={seed}"])
            for seed in seeds
        ]
        gains = sum(student > teacher for teacher, student in found)
        teachers, students = zip(*found, strict=True)
        print(
            f"| {name} | {shown(teachers)} | {shown(students)} | {gains} of {len(seeds)} |",
            flush=True,
        )


def main() -> None:
    """Run everything and print the tables, or write the files alone."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.write or Path(temporary)
        for name, write in FILES.items():
            write(folder / name)
        if given.write is None:
            for source, target in (SETS, SETS[::-1]):
                table(folder, source, target, given.seeds)


if __name__ == "__main__":
    main()
