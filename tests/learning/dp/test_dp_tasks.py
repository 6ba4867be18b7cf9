"""Every task's loss has a gradient a record, or DP-SGD refuses the task: against a loop.

Batches hold what is most likely to break it: masks that do not count, images without a box, points
that are all hidden, users who took nothing.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fedkd import models, tasks
from fedkd.config import ModelSpec, TaskChoice
from fedkd.errors import ConfigError
from fedkd.learning.dp.checks import check_task, checked_loss
from fedkd.learning.dp.per_sample import PerSample
from fedkd.privacy.mechanisms import clipped_sum
from fedkd.tasks import Task, Vocabulary

N, SIDE, CLIP = 5, 16, 0.01
IMAGE = (2, SIDE, SIDE)
UNET = {"name": "unet", "width": 4, "levels": 2, "blocks": 1}
HOURGLASS = {"name": "hourglass", "width": 4, "stages": 1, "depth": 1}
CENTRES = {"name": "centre-point", "widths": [4, 4]}
DAE = {"name": "mult-dae", "hidden": [5]}
TOWERS = {"name": "two-tower", "width": 3}


def masks(draws: torch.Generator) -> Tensor:
    y = torch.randint(3, (N, SIDE, SIDE), generator=draws)
    y[1] = -100
    y[2, : SIDE // 2] = -100
    return y


def boxes(draws: torch.Generator) -> Tensor:
    corner = torch.rand(N, 2, 2, generator=draws) * SIDE / 2
    kind = torch.randint(3, (N, 2, 1), generator=draws)
    y = torch.cat([kind, corner, corner + 4], dim=2)
    y[1, :, 0] = -1
    y[3, 0, 0] = -1
    return y


def points(draws: torch.Generator) -> Tensor:
    y = torch.cat([torch.rand(N, 3, 2, generator=draws) * SIDE, torch.ones(N, 3, 1)], dim=2)
    y[1, :, 2] = 0
    y[2, 0, 2] = 0
    return y


def items(draws: torch.Generator) -> Tensor:
    y = torch.randint(2, (N, 8), generator=draws)
    y[1] = 0
    y[2, :4] = -100
    return y


def histories(draws: torch.Generator) -> Tensor:
    return torch.randint(2, (N, 8), generator=draws).float()


def images(draws: torch.Generator) -> Tensor:
    return torch.rand(N, *IMAGE, generator=draws)


Drawn = Callable[[torch.Generator], Tensor]
CASES: dict[str, tuple[str, dict[str, object], Drawn, Drawn]] = {
    "segmentation": ("segmentation", UNET, images, masks),
    "detection": ("detection", CENTRES, images, boxes),
    "keypoints": ("keypoints", HOURGLASS, images, points),
    "recommendation": ("recommendation", DAE, histories, items),
    "two towers": ("recommendation", TOWERS, histories, items),
}


def task_of(name: str, shape: tuple[int, ...]) -> Task:
    names = [f"i{n}" for n in range(8 if name == "recommendation" else 3)]
    return tasks.build(TaskChoice(name=name), inputs=shape, names=names)


def built(task: Task, spec: dict[str, object]) -> nn.Module:
    return models.build(
        ModelSpec.model_validate(spec),
        shape=task.inputs,
        classes=task.classes,
        generator=torch.Generator().manual_seed(1),
        task=task,
    )


@pytest.mark.parametrize("case", CASES)
def test_gradients_of_records_are_those_of_a_loop_and_each_is_clipped(case: str) -> None:
    name, spec, inputs, targets = CASES[case]
    draws = torch.Generator().manual_seed(0)
    x, y = inputs(draws), targets(draws)
    task = task_of(name, tuple(x.shape[1:]))
    model, loss = built(task, spec), checked_loss(task.likelihood.nll)
    with PerSample(model) as per_sample:
        found = per_sample.gradients(x, y, loss)
        names = list(per_sample.parameters)
    looped = []
    for row in range(N):
        model.zero_grad()
        model.train()
        # By the mean of a batch of one, so that nothing of DP-SGD's own is asked.
        task.likelihood.mean_nll(model(x[row : row + 1]), y[row : row + 1]).backward()
        own = dict(model.named_parameters())
        looped.append(
            [torch.zeros_like(own[n]) if own[n].grad is None else own[n].grad for n in names]
        )
        looped[-1] = [each.clone() for each in looped[-1]]
    for place, each in enumerate(found):
        expected = torch.stack([gradients[place] for gradients in looped])
        torch.testing.assert_close(each, expected, rtol=2e-4, atol=2e-5)
        assert each.isfinite().all()
    norms = torch.cat([each.flatten(1) for each in found], dim=1).norm(dim=1)
    assert norms.max() > CLIP  # or nothing is shown of clipping
    # One record more or less moves the sum by no more than the clip.
    whole = clipped_sum(found, CLIP)
    for row in range(N):
        rest = clipped_sum([torch.cat([each[:row], each[row + 1 :]]) for each in found], CLIP)
        moved = torch.cat([(a - b).flatten() for a, b in zip(whole, rest, strict=True)]).norm()
        assert moved <= CLIP * (1 + 1e-6)


def test_every_built_in_task_is_tried_or_refused() -> None:
    plain = {"classification", "multi-label", "regression"}  # have tests of their own
    texts = {"tagging", "span", "language-model", "sequence-to-sequence"}  # test_dp_texts.py
    tried = plain | texts | {name for name, *_ in CASES.values()}
    words = {"": Vocabulary(size=40, padding=3, start=0, end=1)}
    for name in set(tasks.BUILT_IN) - tried:
        inputs, vocabularies = ((2, 8), words) if name == "retrieval" else ((1, 8, 8), None)
        task = tasks.build(
            TaskChoice(name=name), inputs=inputs, names=("ann", "bob"), vocabularies=vocabularies
        )
        with pytest.raises(ConfigError, match=r"unit 'record': its loss compares the records"):
            check_task(task)
