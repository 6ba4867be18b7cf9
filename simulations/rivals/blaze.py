"""blazefl 3.0, its own FedAvg on a pool of threads."""

import torch
from blazefl.contrib.fedavg import (
    FedAvgBaseServerHandler,
    FedAvgDownlinkPackage,
    FedAvgThreadPoolClientTrainer,
)
from blazefl.core import serialize_model
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from work import BATCH, CLIENTS, RATE, job, shards


def main() -> None:
    """Train."""
    asked, clients = job(), shards()
    torch.set_num_threads(1)

    class Selector:
        def select_model(self, model_name: str) -> nn.Module:
            return asked.model()

    class Shards:
        def get_dataset(self, type_, cid):
            return TensorDataset(*clients[cid])

        def set_dataset(self, type_, cid, dataset):
            raise NotImplementedError

        def get_dataloader(self, type_, cid, batch_size, generator):
            data = self.get_dataset(type_, cid)
            return DataLoader(data, batch_size, shuffle=True, generator=generator)

    selector, data = Selector(), Shards()
    server = FedAvgBaseServerHandler(
        selector, asked.cell, data, asked.rounds, CLIENTS, 1.0, "cpu", BATCH, 0
    )
    trainer = FedAvgThreadPoolClientTrainer(
        selector, asked.cell, data, "cpu", CLIENTS, 1, BATCH, RATE, 0, asked.threads
    )
    trainer.progress_fn = lambda calls: calls
    while not server.is_stopped():
        cohort = server.sample_clients()
        trainer.local_process(FedAvgDownlinkPackage(serialize_model(server.model)), cohort)
        for package in trainer.uplink_package():
            server.load(package)
        asked.round_ends()
    asked.ends(server.model)


if __name__ == "__main__":
    main()
