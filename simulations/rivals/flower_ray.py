"""Flower 1.41's own FedAvg on Ray. PEERS_CPUS says how many CPUs a client asks for."""

import os

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from work import CLIENTS, MODELS, job, shards, train

asked = job()
client_app, server_app = ClientApp(), ServerApp()
KEPT: list = []
"""In a worker: every client's data, made once."""


@client_app.train()
def learn(message: Message, context: Context) -> Message:
    """A client's new model."""
    torch.set_num_threads(1)
    if not KEPT:
        KEPT.extend(shards())
    model = MODELS[str(message.content["config"]["cell"])]()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    client = int(context.node_config["partition-id"])
    round = int(message.content["config"]["server-round"])
    train(model, *KEPT[client], torch.Generator().manual_seed(round * 100 + client))
    content = RecordDict(
        {
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"num-examples": len(KEPT[client][0])}),
        }
    )
    return Message(content=content, reply_to=message)


class Gated(FedAvg):
    """FedAvg that counts its replies and waits after each round."""

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        if sum(not each.has_error() for each in replies) != CLIENTS:
            raise SystemExit(f"round {server_round}: not all clients answered")
        averaged = super().aggregate_train(server_round, replies)
        asked.round_ends()
        return averaged


@server_app.main()
def serve(grid: Grid, _context: Context) -> None:
    """The rounds."""
    model = asked.model()
    strategy = Gated(
        fraction_train=1.0,
        fraction_evaluate=0.0,
        min_train_nodes=CLIENTS,
        min_available_nodes=CLIENTS,
    )
    result = strategy.start(
        grid,
        ArrayRecord(model.state_dict()),
        num_rounds=asked.rounds,
        train_config=ConfigRecord({"cell": asked.cell}),
    )
    model.load_state_dict(result.arrays.to_torch_state_dict())
    asked.ends(model)


def main() -> None:
    """Train."""
    cpus = int(os.environ.get("PEERS_CPUS", "1"))
    run_simulation(
        server_app,
        client_app,
        num_supernodes=CLIENTS,
        backend_config={
            "init_args": {"num_cpus": asked.threads, "include_dashboard": False},
            "client_resources": {"num_cpus": cpus, "num_gpus": 0.0},
        },
    )


if __name__ == "__main__":
    main()
