"""Models of texts: padding changes nothing."""

from dataclasses import replace

import pytest
import torch

from fedkd import models, tasks
from fedkd.config import ModelSpec, TaskChoice
from fedkd.errors import ConfigError
from fedkd.models import call, text
from fedkd.tasks import Vocabulary

WORDS = Vocabulary(size=40, padding=3, start=0, end=1)
LENGTH = 9


def asked(targets="classes"):
    task = tasks.build(
        TaskChoice(), inputs=(LENGTH,), names=("a", "b", "c"), vocabularies={"": WORDS}
    )
    answer = {"tags": (LENGTH, 3), "spans": (2, LENGTH)}.get(targets, (3,))
    return replace(task, targets=targets, answer=answer)


def build(name, task, seed=0):
    draws = torch.Generator().manual_seed(seed)
    spec = ModelSpec(name=name)
    return models.build(spec, shape=task.inputs, classes=3, generator=draws, task=task).eval()


CASES = [(name, targets) for name, each in text.BUILT_IN.items() for targets in each.answers
         if targets in ("classes", "tags", "spans")]  # fmt: skip


@pytest.mark.parametrize(("name", "targets"), sorted(CASES))
def test_what_a_model_says_of_a_record_does_not_depend_on_padding_or_company(name, targets):
    model = build(name, asked(targets))
    draws = torch.Generator().manual_seed(1)
    x = torch.randint(4, WORDS.size, (5, LENGTH), generator=draws)
    for row, length in enumerate([9, 7, 4, 2, 1]):
        x[row, length:] = WORDS.padding
    together = call.answer(model, x)
    for row in range(5):
        assert torch.allclose(together[row], call.answer(model, x[row : row + 1])[0], atol=1e-5)
    assert together.shape == (5, *asked(targets).answer)


def test_a_model_of_images_takes_no_texts_and_the_other_way_round():
    with pytest.raises(ConfigError, match="model 'lenet5' does not take texts"):
        build("lenet5", asked())
    with pytest.raises(ConfigError, match="model 'bag' takes texts, and records have shape"):
        models.build(ModelSpec(name="bag"), shape=(1, 8, 8), classes=3, generator=torch.Generator())
