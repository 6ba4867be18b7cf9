"""Every built-in model of texts is protected: gradients of records against a loop, in float64.

Records have padding, tokens that stand twice, places that do not count, and one has no token.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fedkd import models, tasks
from fedkd.config import ModelSpec, TaskChoice
from fedkd.learning.dp.checks import check_model, checked_loss
from fedkd.learning.dp.per_sample import PerSample
from fedkd.models import text
from fedkd.privacy.mechanisms import clipped_sum
from fedkd.tasks import Targets, Task, Vocabulary
from fedkd.tasks.likelihoods.categorical import IGNORED

WORDS = Vocabulary(size=13, padding=3, start=0, end=1)
N, LENGTH, CLIP = 5, 8, 0.01
LENGTHS = [8, 6, 3, 1, 0]
SHAPES: dict[Targets, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "classes": ((LENGTH,), (3,)),
    "tags": ((LENGTH,), (LENGTH, 3)),
    "spans": ((LENGTH,), (2, LENGTH)),
    "tokens": ((2 * LENGTH - 1,), (LENGTH - 1, WORDS.size)),
    "next-tokens": ((LENGTH - 1,), (LENGTH - 1, WORDS.size)),
}
"""Of an input and of an answer."""
CASES = sorted(
    (name, targets, tied)
    for name, each in text.BUILT_IN.items()
    for targets in each.answers
    for tied in ((True, False) if "tied" in each.Options.model_fields else (None,))
    if targets in SHAPES
)


def padded(count: int, draws: torch.Generator, fill: int) -> Tensor:
    """(N, count), from `LENGTHS` on padding."""
    tokens = torch.randint(4, WORDS.size, (N, count), generator=draws)
    places = torch.arange(count)
    return torch.where(places < torch.tensor(LENGTHS)[:, None], tokens, fill)


def records(targets: Targets) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    x = padded(LENGTH, draws, WORDS.padding)
    if targets == "classes":
        return x, torch.randint(3, (N,), generator=draws)
    if targets == "spans":
        return x, torch.tensor([[0, 3], [5, 5], [1, 2], [0, 0], [IGNORED, IGNORED]])
    if targets == "tags":
        return x, torch.where(x == WORDS.padding, IGNORED, x % 3)
    y = padded(LENGTH - 1, draws, IGNORED)
    if targets == "next-tokens":
        return x[:, :-1], y
    return torch.cat([x, padded(LENGTH - 1, draws, WORDS.padding)], dim=1), y


def asked(targets: Targets) -> Task:
    inputs, answer = SHAPES[targets]
    names = ("a", "b", "c")
    task = tasks.build(TaskChoice(), inputs=inputs, names=names, vocabularies={"": WORDS})
    return replace(task, targets=targets, answer=answer)


@pytest.mark.parametrize(("name", "targets", "tied"), CASES)
def test_gradients_of_records_are_those_of_a_loop_and_each_is_clipped(
    name: str, targets: Targets, tied: bool | None
) -> None:
    task, (x, y) = asked(targets), records(targets)
    draws = torch.Generator().manual_seed(1)
    options = {} if tied is None else {"tied": tied}
    spec = ModelSpec.model_validate({"name": name} | options)
    model = models.build(
        spec, shape=task.inputs, classes=task.classes, generator=draws, task=task
    ).double()
    check_model(model.float(), task.inputs, like=x)
    with PerSample(model.double()) as per_sample:
        for module in model.modules():  # what is random differs from pass to pass
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        found = per_sample.gradients(x, y, checked_loss(task.likelihood.nll))
        own = list(per_sample.parameters.values())
    model.train()
    for row in range(N):
        alone = task.likelihood.mean_nll(model(x[row : row + 1]), y[row : row + 1])
        wanted = torch.autograd.grad(alone, own, allow_unused=True, materialize_grads=True)
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours[row], theirs, rtol=1e-6, atol=1e-12)
    norms = torch.cat([each.flatten(1) for each in found], dim=1).norm(dim=1)
    assert norms.max() > CLIP  # or nothing is shown of clipping
    whole = clipped_sum(found, CLIP)
    for row in range(N):
        rest = clipped_sum([torch.cat([each[:row], each[row + 1 :]]) for each in found], CLIP)
        moved = torch.cat([(a - b).flatten() for a, b in zip(whole, rest, strict=True)]).norm()
        assert moved <= CLIP * (1 + 1e-6)


def test_vectors_that_do_not_learn_may_be_tied() -> None:
    task, (x, y) = asked("next-tokens"), records("next-tokens")
    spec = ModelSpec.model_validate({"name": "causal-transformer", "width": 8, "layers": 1})
    draws = torch.Generator().manual_seed(1)
    model = models.build(spec, shape=task.inputs, classes=3, generator=draws, task=task).double()
    model.get_submodule("words.embedding").requires_grad_(requires_grad=False)
    with PerSample(model) as per_sample:
        found = per_sample.gradients(x, y, checked_loss(task.likelihood.nll))
        own = list(per_sample.parameters.values())
    for row in range(N):
        alone = task.likelihood.mean_nll(model(x[row : row + 1]), y[row : row + 1])
        wanted = torch.autograd.grad(alone, own, allow_unused=True, materialize_grads=True)
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours[row], theirs, rtol=1e-6, atol=1e-12)
