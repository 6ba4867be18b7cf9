"""DP-SGD with a likelihood: numbers, and classes at many places a record, some of them padding."""

from functools import partial

import torch
from torch import Tensor, nn

from fedkd.config import Knowledge, Optimisation, validate
from fedkd.data.types import Samples
from fedkd.learning.dp import distil, sgd
from fedkd.learning.dp.per_sample import PerSample
from fedkd.learning.dp.sgd import Noise
from fedkd.learning.forms import terms
from fedkd.learning.offline import asking
from fedkd.models.layers import LOGITS, forward_with, inspect_layers
from fedkd.tasks.likelihoods.categorical import CATEGORICAL, IGNORED

HOW = Optimisation(epochs=120, batch_size=16, learning_rate=0.5)
QUIET = Noise(noise_multiplier=1e-6, clip=10.0, sample_rate=1.0, batch_size=32)
LABEL_FORMS = ("kd", "dkd", "jsd", "soft-labels", "mae")


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def squared(answers: Tensor, targets: Tensor) -> Tensor:
    return (answers - targets).square().mean(dim=1) / 2


def test_numbers_are_learned() -> None:
    x = torch.rand(32, 3, generator=draws(1))
    y = x @ torch.tensor([[2.0, 0.0], [0.0, -3.0], [1.0, 1.0]])
    model = nn.Linear(3, 2)
    sgd.train(model, Samples(x, y), HOW, QUIET, loss=squared)
    assert squared(model(x), y).mean() < 0.1 * squared(y.mean(dim=0), y).mean()


class Tagger(nn.Module):
    """(N, 4) -> logits (N, 2, 3) of two places."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.last = nn.Linear(4, 6)
        with torch.no_grad():
            self.last.weight.copy_(torch.randn(6, 4, generator=draws(seed)))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x).reshape(-1, 2, 3)


def test_a_record_of_many_places_has_the_gradient_that_it_has_alone_and_padding_none() -> None:
    student, teacher = Tagger(1), Tagger(2).eval()
    x = torch.rand(5, 4, generator=draws(3))
    y = torch.tensor([[0, 1], [2, IGNORED], [1, 1], [IGNORED, 0], [2, 0]])
    anatomies = [inspect_layers(each, (4,)) for each in (student, teacher)]
    knowledge = [validate(Knowledge, {"name": name}) for name in LABEL_FORMS]
    built = terms.build(terms.resolve(knowledge, *anatomies), *anatomies, draws(4))
    rows = torch.arange(5)
    with distil.flat_answers(student, built) as model:
        ask = asking(teacher, x, built.teacher)
        loss = distil.record_loss(model, built, ask, y, 0.5, likelihood=CATEGORICAL)
        with PerSample(model) as per_sample:
            found = per_sample.gradients(x, rows, loss)
    for row in range(5):
        one = partial(forward_with, layers=())
        seen, told = one(student, x[row : row + 1]), one(teacher, x[row : row + 1])
        target = y[row : row + 1]
        value = 0.5 * CATEGORICAL.mean_nll(seen[LOGITS], target) + built(seen, told, target)
        wanted = torch.autograd.grad(value, list(student.parameters()))
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours[row], theirs, rtol=1e-4, atol=1e-6)
    padded = found[0].reshape(5, 2, 3, 4)
    assert not padded[1, 1].any()
    assert padded[1, 0].any()
