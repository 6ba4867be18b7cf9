"""FedAvg with a leash on the clients."""

from pydantic import Field

from fedkd.methods.core.base import Card
from fedkd.methods.fedavg import FedAvg, FedAvgParams


class FedProxParams(FedAvgParams):
    """FedProx's own parameters."""

    mu: float = Field(default=0.01, ge=0)
    """The weight of mu/2 ||w - w_global||^2; 0 is FedAvg."""


class FedProx(FedAvg):
    """FedAvg whose clients are held near the global model. Li et al. 2020, arXiv:1812.06127."""

    card = Card(
        paper="Li et al. 2020, arXiv:1812.06127",
        sends="its model and its example count",
        needs="equal models at all clients and the server",
        returns="the averaged model",
        unlike_models=False,
        counts=("example count",),
        summable=True,
        averages=True,
        asynchronous="models",
        combines=("models",),
    )
    Params = FedProxParams
    params: FedProxParams

    @property
    def proximal(self) -> float:
        return self.params.mu
