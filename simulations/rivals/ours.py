"""fedkd's FedAvg. PEERS_ENGINE names its engine."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from work import BATCH, CLIENTS, RATE, images, job

from fedkd import config
from fedkd.data.types import Samples
from fedkd.federation import engines
from fedkd.federation.answers import Record
from fedkd.federation.prepare import prepare
from fedkd.federation.server import Checkpoint

asked = job()
MODELS = {
    "mlp": {"name": "mlp", "hidden": [200]},
    "cnn": "lenet5",
    "resnet8": {"name": "resnet8", "norm": "group"},
}


class Gate:
    """A keeper that keeps nothing and waits after each round."""

    def resume(self) -> Checkpoint | None:
        return None

    def keep(self, record: Record, checkpoint: Checkpoint, generated: Samples | None) -> None:
        if record["failures"]:
            raise SystemExit(f"clients failed: {record['failures']}")
        asked.round_ends()


class Unwatched:
    """An observer that looks away."""

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_: None


def main() -> None:
    """Train."""
    x, y = images()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npz"
        np.savez(path, x_train=x, y_train=y, x_test=x[:10], y_test=y[:10])
        table = {
            "name": "rivals",
            "rounds": asked.rounds,
            "data": {"name": str(path), "partition": {"scheme": "iid"}},
            "clients": {
                "count": CLIENTS,
                "models": [MODELS[asked.cell]],
                "training": {
                    "epochs": 1,
                    "batch_size": BATCH,
                    "optimiser": "sgd",
                    "learning_rate": RATE,
                    "momentum": 0.0,
                },
            },
            "student": {"model": MODELS[asked.cell]},
            "method": {"name": "fedavg"},
            "engine": {
                "threads": asked.threads,
                "kind": os.environ.get("PEERS_ENGINE", "in-process"),
            },
        }
        ready = prepare(config.parse(table))
        student = engines.simulate(ready, Gate(), Unwatched(), states=None)
    asked.ends(student)


if __name__ == "__main__":
    main()
