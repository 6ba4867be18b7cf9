"""pfl 0.6, its own FederatedAveraging on its simulated backend, in one process."""

import torch
import torch.nn.functional as F
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from torch import Tensor, nn
from work import BATCH, CLIENTS, RATE, job, shards


class Learner(nn.Module):
    """A model as pfl asks for it: with its loss, and nothing measured."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        self.train()
        return F.cross_entropy(self.inside(x), y)

    def metrics(self, x: Tensor, y: Tensor) -> dict[str, object]:
        return {}


def main() -> None:
    """Train."""
    asked = job()
    torch.set_num_threads(asked.threads)
    clients = shards()

    class Gate(TrainingProcessCallback):
        def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
            asked.round_ends()
            return False, Metrics()

    def of_client(client: int) -> Dataset:
        x, y = clients[client]
        order = torch.randperm(len(x))  # pfl does not shuffle
        return Dataset(raw_data=[x[order], y[order]], user_id=client)

    inside = asked.model()
    learner = Learner(inside)
    model = PyTorchModel(
        learner,
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=torch.optim.SGD(learner.parameters(), lr=1.0),
    )
    data = FederatedDataset(of_client, get_user_sampler("minimize_reuse", list(range(CLIENTS))))
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=asked.rounds,
            evaluation_frequency=10**9,
            train_cohort_size=CLIENTS,
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(training_data=data, val_data=data),
        model=model,
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=RATE, local_batch_size=BATCH
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=BATCH),
        callbacks=[Gate()],
    )
    asked.ends(inside)


if __name__ == "__main__":
    main()
