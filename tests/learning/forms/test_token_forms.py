"""Forms of tokens between transformers: they teach, and padding says nothing."""

import pytest
import torch

from fedkd import models, tasks
from fedkd.config import Knowledge, ModelSpec, Optimisation, TaskChoice
from fedkd.data.types import Samples
from fedkd.errors import ConfigError
from fedkd.learning import offline
from fedkd.learning.forms import terms
from fedkd.models.layers import forward_with, inspect_layers
from fedkd.tasks import Vocabulary

WORDS = Vocabulary(size=20, padding=0, start=1, end=2)
TASK = tasks.build(TaskChoice(), inputs=(8,), names=("a", "b"), vocabularies={"": WORDS})
ATTENTION = [f"blocks.0.attention.{each}" for each in ("query", "key", "value")]
CASES = {
    "hidden-states": {"student": ["embedded", "blocks.0"], "teacher": ["embedded", "blocks.1"]},
    "cosine": {"student": ["norm"], "teacher": ["norm"]},
    "pkd": {"student": ["blocks.0"], "teacher": ["blocks.1"]},
    "attention-scores": {"student": ATTENTION[:2], "teacher": ATTENTION[:2], "heads": 2},
    "minilm": {"student": ATTENTION, "teacher": ATTENTION, "heads": 2},
}


def encoder(width, layers, seed):
    spec = ModelSpec.model_validate(
        {"name": "encoder", "width": width, "layers": layers, "heads": 2}
    )
    draws = torch.Generator().manual_seed(seed)
    return models.build(spec, shape=(8,), classes=2, generator=draws, task=TASK).eval()


def texts():
    draws = torch.Generator().manual_seed(4)
    x = torch.randint(3, 20, (300, 8), generator=draws)  # more than a teacher is asked at once
    x[torch.arange(8)[None] >= torch.randint(2, 6, (300, 1), generator=draws)] = WORDS.padding
    x[:10, 6:] = 5
    return Samples(x, torch.arange(300) % 2)


def built(name, small, large, **changes):
    knowledge = [Knowledge.model_validate({"name": name, **CASES[name], **changes})]
    anatomies = inspect_layers(small, (8,)), inspect_layers(large, (8,))
    complete = terms.resolve(knowledge, *anatomies)
    terms.check_task(complete, TASK)
    draws = torch.Generator().manual_seed(0)
    return terms.build(complete, *anatomies, draws, TASK.likelihood, WORDS)


@pytest.mark.parametrize("name", CASES)
def test_a_form_teaches_and_does_not_see_padding(name):
    student, teacher, data = encoder(4, 1, 0), encoder(8, 2, 1), texts()
    both = built(name, student, teacher)

    def value(x):
        return both(forward_with(student, x, both.student), forward_with(teacher, x, both.teacher),
                    data.y[: len(x)])  # fmt: skip

    short = data.x[20:24]
    alone = torch.stack([value(row[None]) for row in short]).mean()  # without company's padding
    torch.testing.assert_close(value(short), alone, rtol=1e-4, atol=1e-6)
    how = Optimisation(epochs=4, batch_size=50, learning_rate=0.01, optimiser="adam")
    draws = torch.Generator().manual_seed(0)
    losses = offline.teach(student, teacher, both, data, how, draws, labels=0.0)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("minilm", {"heads": 3}, "heads is 3: expected a divisor of the widths"),
        ("minilm", {"student": ATTENTION[:2], "teacher": ATTENTION[:2]}, "a query, a key and a"),
        ("cosine", {"student": ["heads"]}, r"gives features \(2,\): expected states of tokens"),
    ],
)
def test_layers_that_do_not_fit_are_refused(name, changes, message):
    with pytest.raises(ConfigError, match=message):
        built(name, encoder(4, 1, 0), encoder(8, 2, 1), **changes)


def test_tokens_of_unlike_views_are_not_compared():
    knowledge = [Knowledge.model_validate({"name": "cosine", **CASES["cosine"]})]
    with pytest.raises(ConfigError, match="teacher and student see different views"):
        terms.check_alike(knowledge, ("words",), ("bert",))
