"""Rows that each client keeps from training, to see how models do on what is its own."""

from dataclasses import replace

from fedkd.data.holdout import held_out
from fedkd.data.types import FederatedData, Samples
from fedkd.errors import ConfigError, DataError


def keep_out(data: FederatedData, share: float, *, seed: int) -> FederatedData:
    """Hold out a share of each client's rows, each by a hash of itself (`holdout`).

    Raises:
        DataError: a client has rows, and none is left to train on.
        ConfigError: records are histories that are inputs and targets at once.
    """
    if data.targets == "items":
        raise ConfigError(
            "clients.test_share would hold out users whose items all are in sight, so that none is "
            "left to find: leave it out; data.test_share holds out test users with items to find"
        )
    parts = [_parted(data, client, share, seed) for client in range(len(data.clients))]
    return replace(
        data,
        clients=tuple(training for training, _ in parts),
        held_out=tuple(testing for _, testing in parts),
    )


def _parted(data: FederatedData, client: int, share: float, seed: int) -> tuple[Samples, Samples]:
    """What a client trains on, and what it is tested on."""
    samples = data.clients[client]
    if not len(samples):  # another site's, which is not here
        return samples, samples
    names = [
        data.class_names[label] if data.targets == "classes" else str(label)
        for label in samples.y.tolist()
    ]
    kept = held_out(samples.x, names, share, seed=seed, purpose="personal test")
    if bool(kept.all()):
        # How many records there are is the client's secret under DP, and this may be shown.
        raise DataError(
            f"clients.test_share = {share:g} leaves client {client} nothing to train on: lower it"
        )
    return samples.subset((~kept).nonzero()[:, 0]), samples.subset(kept.nonzero()[:, 0])
