"""What the in-process engine costs: against nothing at all, and against a bare thread pool.

    python simulations/engine_speed.py

Prints medians over several repetitions, interleaved, after a warm-up. The machine should be idle.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from fedkd import config, rng
from fedkd.data.types import Samples
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Broadcast, Tensors, Upload
from fedkd.federation import engines
from fedkd.federation.answers import Record
from fedkd.federation.prepare import PreparedExperiment, prepare
from fedkd.federation.server import Checkpoint
from fedkd.learning import supervised
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads

CORES = len(os.sched_getaffinity(0))
REPETITIONS = 5
console = Console()


class Idle(Method):
    """A method that does nothing: what remains is the engine."""

    card = Card(paper="-", sends="nothing", needs="-", returns="nothing", has_teachers=False)

    def expects(self, setting: Setting, client: int) -> Expected:
        return {}

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        return Upload()

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        return Broadcast()


class Train(Idle):
    """A method whose clients train their teacher and send nothing of it."""

    card = Card(paper="-", sends="nothing", needs="-", returns="nothing")

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        ctx.train()
        return Upload()


class Forget:
    """A keeper that keeps the rounds' times only."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def resume(self) -> Checkpoint | None:
        return None

    def keep(self, record: Record, checkpoint: Checkpoint, generated: Samples | None) -> None:
        self.seconds.append(record["seconds"]["clients"])


class Unwatched:
    """An observer that looks away."""

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_: None


def prepared(
    folder: Path,
    method: str,
    *,
    clients: int,
    images: int,
    rounds: int,
    model: str = "dense-cnn",
    kind: str = "in-process",
) -> PreparedExperiment:
    """Random images, so that the figures need no data set; a method here, or one of fedkd's."""
    draw = np.random.default_rng(0)
    size = clients * images
    x = draw.integers(0, 256, (size, 28, 28), dtype=np.uint8)
    y = np.arange(size) % 10
    path = folder / f"{method}-{clients}.npz"
    np.savez(path, x_train=x, y_train=y, x_test=x[:10], y_test=y[:10])
    table = {
        "name": "speed",
        "rounds": rounds,
        "data": {"name": str(path), "partition": {"scheme": "iid"}},
        "clients": {
            "count": clients,
            "models": [model],
            "training": {"epochs": 1, "batch_size": 32},
        },
        "student": {"model": model},
        "method": {"name": f"{__name__}:{method}" if method in globals() else method},
        "engine": {"threads": CORES, "kind": kind},
    }
    return prepare(config.parse(table))


def engine_seconds(ready: PreparedExperiment, states: Path | None = None) -> list[float]:
    """Seconds of the clients' part of each round."""
    keeper = Forget()
    engines.simulate(ready, keeper, Unwatched(), states=states)
    return keeper.seconds


def bare_seconds(ready: PreparedExperiment) -> float:
    """Seconds of the same training in a thread pool, without Flower or fedkd's engine."""
    experiment = ready.experiment

    def train(client: int) -> None:
        torch.set_num_threads(1)
        model = ready.setting.build(
            experiment.client_model(client), purpose="teacher", client=client
        )
        batches = rng.stream(experiment.seed, purpose="batches", round=1, client=client)
        supervised.train(model, ready.data.clients[client], experiment.clients.training, batches)

    started = time.perf_counter()
    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(train, range(ready.setting.clients)))
    return time.perf_counter() - started


def main() -> None:
    """Measure, print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        idle = prepared(folder, "Idle", clients=1000, images=1, rounds=REPETITIONS + 1)
        for where, states in (("in memory", None), ("on disk", folder / "idle")):
            rounds = engine_seconds(idle, states)[1:]
            console.print(
                f"1,000 clients that do nothing, states {where}: "
                f"{statistics.median(rounds):.3f} s a round"
            )

        train = prepared(folder, "Train", clients=10, images=600, rounds=1)
        ours, bare = [], []
        for _ in track(range(REPETITIONS + 1), "training", console=console):
            ours += engine_seconds(train)
            bare.append(bare_seconds(train))
        ratio = statistics.median(a / b for a, b in zip(ours[1:], bare[1:], strict=True))
        console.print(
            f"10 clients x 600 images, one dense-cnn epoch: {statistics.median(ours[1:]):.2f} s; "
            f"a bare thread pool: {statistics.median(bare[1:]):.2f} s; "
            f"ratio {ratio:.2f} ({CORES} cores, medians of {REPETITIONS})"
        )


if __name__ == "__main__":
    main()
