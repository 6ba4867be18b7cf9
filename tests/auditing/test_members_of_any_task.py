"""What a model learned by heart shows in the losses of records, whatever the task."""

import pytest
import torch

from fedkd import models, tasks
from fedkd.auditing import scores
from fedkd.auditing.roc import roc
from fedkd.config import ModelSpec, Optimisation, TaskChoice
from fedkd.data.types import Samples
from fedkd.learning import evaluate, supervised
from fedkd.tasks import Vocabulary

MEMBERS, OTHERS, LENGTH = torch.arange(40), torch.arange(40, 80), 6
WORDS = Vocabulary(size=24, padding=3, start=0, end=1)
HOW = Optimisation(epochs=150, batch_size=20, learning_rate=0.02)
CASES = {
    "regression": {"name": "mlp", "hidden": [64]},
    "tagging": {"name": "bilstm", "width": 16, "hidden": 24},
    "language-model": {"name": "causal-transformer", "width": 16, "layers": 1, "heads": 2},
}


def drawn(name):
    """A task and records of which nothing can be learned but by heart."""
    draws = torch.Generator().manual_seed(0)
    if name == "regression":
        x, y = torch.randn(80, 5, generator=draws), torch.randn(80, 1, generator=draws)
        return tasks.build(TaskChoice(name=name), inputs=(5,), names=("y",)), Samples(x, y)
    x = torch.randint(4, WORDS.size, (80, LENGTH), generator=draws)
    many = 3 if name == "tagging" else WORDS.size
    y = torch.randint(many, (80, LENGTH), generator=draws)
    x[::2, 4:], y[::2, 4:] = WORDS.padding, -100
    names = tuple(map(str, range(many)))
    task = tasks.build(
        TaskChoice(name=name), inputs=(LENGTH,), names=names, vocabularies={"": WORDS}
    )
    return task, Samples(x, y)


@pytest.mark.parametrize("name", CASES)
def test_members_have_lower_losses_once_they_were_learned_and_not_before(name):
    task, samples = drawn(name)
    draws = torch.Generator().manual_seed(1)
    model = models.build(
        ModelSpec.model_validate(CASES[name]),
        shape=task.inputs,
        classes=task.classes,
        generator=draws,
        task=task,
    )
    odds = scores.odds_of(task)

    def area():
        sure = scores.loss_threshold(odds(evaluate.answers(model, samples.x), samples.y))
        return roc(sure[MEMBERS.numpy()], sure[OTHERS.numpy()]).auc

    scores.check_task(task)
    before = area()
    assert before.low < 0.5 < before.high
    learner = samples.subset(MEMBERS)
    supervised.train(model, learner, HOW, draws, likelihood=task.likelihood)
    assert area().value > 0.75
