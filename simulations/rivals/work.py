"""The work that every framework does, and the gate between its rounds. Needs torch and numpy alone.

Federated averaging: 10 clients of 600 images, one epoch of plain SGD in batches of 32, no score.
"""

import argparse
import sys
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLIENTS, IMAGES, BATCH, RATE, CLASSES = 10, 600, 32, 0.05, 10


class Mlp(nn.Sequential):
    """784-200-10."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, CLASSES))


class Cnn(nn.Sequential):
    """LeNet-5's layers with rectifiers, 61,706 numbers."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()),
            nn.Linear(84, CLASSES),
        )


class Block(nn.Module):
    """Two convolutions and a way round them."""

    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.GroupNorm(8, out), nn.GroupNorm(8, out)])
        self.way: nn.Module = nn.Identity()
        if inside != out:
            projection = nn.Conv2d(inside, out, 1, stride, bias=False)
            self.way = nn.Sequential(projection, nn.GroupNorm(8, out))

    def forward(self, x: Tensor) -> Tensor:
        inside = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(inside)) + self.way(x))


class ResNet8(nn.Sequential):
    """Three blocks of 16, 32 and 64 channels, group norm, 77,754 numbers."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.GroupNorm(8, 16), nn.ReLU()),
            *(Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2)),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES)),
        )


# The same layers as fedkd's own `mlp`, `lenet5` and `resnet8`, for whoever has none of these.
MODELS: dict[str, type[nn.Module]] = {"mlp": Mlp, "cnn": Cnn, "resnet8": ResNet8}


def images() -> tuple[np.ndarray, np.ndarray]:
    """Noisy pictures of ten patterns, (N, 28, 28) uint8, and which (N,): something to learn."""
    draw = np.random.default_rng(0)
    y = np.arange(CLIENTS * IMAGES) % CLASSES
    patterns = draw.integers(0, 160, (CLASSES, 28, 28))
    noise = draw.integers(0, 96, (len(y), 28, 28))
    return (patterns[y] + noise).astype(np.uint8), y


def shards() -> list[tuple[Tensor, Tensor]]:
    """Each client's inputs (600, 1, 28, 28) in [0, 1], and classes (600,)."""
    x, y = images()
    inputs, classes = torch.from_numpy(x).float().div(255).unsqueeze(1), torch.from_numpy(y)
    return list(zip(inputs.split(IMAGES), classes.split(IMAGES), strict=True))


@dataclass(frozen=True)
class Job:
    """What a worker is asked for."""

    cell: str
    """A model of `MODELS`."""
    rounds: int
    threads: int
    """Of the framework's own kind: of the intra-op pool, a pool of threads or of processes."""
    waits: bool
    """Whether each round waits for a word from outside."""

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return MODELS[self.cell]()

    def round_ends(self) -> None:
        """Say so, and wait until the next may begin."""
        print("round", flush=True)
        if self.waits:
            sys.stdin.readline()

    def ends(self, model: nn.Module) -> None:
        """Say how much was learned, so that nobody wins by doing nothing."""
        x, y = (torch.cat(each) for each in zip(*shards(), strict=True))
        model.eval()
        with torch.no_grad():
            right = (model(x[:1000]).argmax(dim=1) == y[:1000]).double().mean()
        print(f"accuracy {float(right):.3f}", flush=True)


def job() -> Job:
    """What the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cell", choices=MODELS)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--waits", action="store_true")
    asked = parser.parse_args()
    return Job(asked.cell, asked.rounds, asked.threads, asked.waits)


def train(model: nn.Module, x: Tensor, y: Tensor, draws: torch.Generator) -> None:
    """One epoch, in a new order."""
    optimiser = torch.optim.SGD(model.parameters(), lr=RATE)
    model.train()
    for rows in torch.randperm(len(x), generator=draws).split(BATCH):
        optimiser.zero_grad()
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        optimiser.step()
