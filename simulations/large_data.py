"""Whether data larger than memory trains: 5,000 images of 224 x 224 x 3, read from their file.

    python simulations/large_data.py                       # a few minutes
    python simulations/large_data.py --images 500          # does it run?

FedAvg, four clients, one round of one epoch, a small convolutional network on the CPU. The images
are 0.75 GB in their file, and 3 GB as float32. Prints the peak of the process's memory and seconds.
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fedkd import config
from fedkd.jobs.simulate import simulate

SIDE, CLASSES, AT_ONCE = 224, 3, 100


class SmallCNN(nn.Sequential):
    """Two strided convolutions and a mean over places: what trains is not what is measured here."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__(
            nn.Conv2d(shape[0], 8, 8, stride=8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, classes),
        )


def write(folder: Path, part: str, images: int, seed: int) -> None:
    """Noisy images whose brightest channel says their class, a hundred in memory at a time."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(CLASSES, size=images)
    shape = (images, SIDE, SIDE, 3)
    with (folder / f"x_{part}.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, images, AT_ONCE):
            few = labels[start : start + AT_ONCE]
            x = draw.integers(0, 128, (len(few), *shape[1:]), dtype=np.uint8)
            for image, label in zip(x, few, strict=True):
                image[..., label] += np.uint8(100)
            file.write(x.tobytes())
    np.save(folder / f"y_{part}.npy", labels)


def experiment(data: Path) -> config.Experiment:
    """FedAvg on the folder."""
    model = "large_data:SmallCNN"
    training = {"epochs": 1, "batch_size": 32, "learning_rate": 0.05}
    return config.parse(
        {
            "name": "large-data",
            "rounds": 1,
            "data": {"name": str(data), "partition": {"scheme": "iid"}},
            "clients": {"count": 4, "models": [model], "training": training},
            "student": {"model": model},
            "method": {"name": "fedavg"},
        }
    )


def peak() -> float:
    """The most memory that this process has had, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def main() -> None:
    """Write the images, train, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    chosen = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / "images"
        data.mkdir()
        write(data, "train", chosen.images, seed=0)
        write(data, "test", max(100, chosen.images // 10), seed=1)
        size = sum(file.stat().st_size for file in data.iterdir()) / 1e9
        before, start = peak(), time.monotonic()
        summary = simulate(experiment(data), Path(temporary) / "run")
        seconds = time.monotonic() - start
    print(f"{size:.2f} GB of images, {chosen.images} to train on")
    print(f"peak memory {peak():.2f} GB, of it {before:.2f} GB before the first image was read")
    print(f"{seconds:.0f} s, accuracy {summary['student']['accuracy']:.2f}")


if __name__ == "__main__":
    main()
