"""Models that write: nothing is foretold by what comes later, and padding changes nothing."""

from dataclasses import replace

import pytest
import torch

from fedkd import models, tasks
from fedkd.config import ModelSpec, TaskChoice
from fedkd.errors import ConfigError
from fedkd.models import call
from fedkd.tasks import Vocabulary

WORDS = Vocabulary(size=30, padding=3, start=0, end=1)
L = 7
READING = ("gru-seq2seq", "transformer-seq2seq")
MODELS = (*READING, "causal-transformer")


def asked(name):
    inputs = (2 * L - 1,) if name in READING else (L - 1,)
    task = tasks.build(
        TaskChoice(),
        inputs=inputs,
        names=tuple(map(str, range(WORDS.size))),
        vocabularies={"": WORDS},
    )
    targets = "tokens" if name in READING else "next-tokens"
    return replace(task, targets=targets, answer=(L - 1, WORDS.size))


def build(name, **options):
    task = asked(name)
    spec = ModelSpec(name=name, **options)
    draws = torch.Generator().manual_seed(0)
    built = models.build(spec, shape=task.inputs, classes=WORDS.size, generator=draws, task=task)
    return built.eval()


def records(name, lengths=(6, 4, 1)):
    draws = torch.Generator().manual_seed(1)
    x = torch.randint(4, WORDS.size, (len(lengths), *asked(name).inputs), generator=draws)
    for row, length in enumerate(lengths):
        if name in READING:
            x[row, length:L] = WORDS.padding
            x[row, L + length :] = WORDS.padding
        else:
            x[row, length:] = WORDS.padding
    return x


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_a_later_token_changes_no_earlier_answer_and_an_earlier_one_does(name, tied):
    model, x = build(name, tied=tied), records(name, (6, 6))
    before = call.answer(model, x)
    assert before.shape == (2, L - 1, WORDS.size)
    offset = x.shape[1] - (L - 1)
    for place in range(L - 1):
        changed = x.clone()
        changed[:, offset + place] = (changed[:, offset + place] - 4 + 1) % 26 + 4
        after = call.answer(model, changed)
        assert torch.equal(after[:, :place], before[:, :place])
        assert not torch.allclose(after[:, place], before[:, place])


@pytest.mark.parametrize("name", READING)
def test_what_is_written_depends_on_every_token_that_was_read(name):
    model, x = build(name), records(name, (6,))
    before = call.answer(model, x)
    for place in range(6):
        changed = x.clone()
        changed[:, place] = (changed[:, place] - 4 + 1) % 26 + 4
        assert not torch.allclose(call.answer(model, changed), before)


@pytest.mark.parametrize("name", MODELS)
def test_padding_and_company_change_nothing_and_places_of_padding_are_zeros(name):
    model, lengths = build(name), (6, 4, 1)
    x = records(name, lengths)
    together = call.answer(model, x)
    for row, length in enumerate(lengths):
        alone = call.answer(model, x[row : row + 1])[0]
        assert torch.allclose(together[row], alone, atol=1e-5)
        assert not together[row, length:].any()
        assert together[row, :length].any(dim=-1).all()
    assert torch.isfinite(call.answer(model, torch.full_like(x, WORDS.padding))).all()


@pytest.mark.parametrize("name", MODELS)
def test_tied_weights_are_fewer_and_learn(name):
    tied, apart = build(name), build(name, tied=False)
    size, other = (sum(p.numel() for p in model.parameters()) for model in (tied, apart))
    assert other - size == WORDS.size * 64
    call.answer(tied, records(name)).square().sum().backward()
    assert all(each.grad is not None for each in tied.parameters())


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="heads is 5: expected a divisor of the width 64"):
        build("causal-transformer", heads=5)


def test_a_writer_of_no_source_does_not_translate():
    task = asked("gru-seq2seq")
    with pytest.raises(ConfigError, match="choose one of gru-seq2seq, transformer-seq2seq, or"):
        models.build(
            ModelSpec(name="causal-transformer"),
            shape=task.inputs,
            classes=WORDS.size,
            generator=torch.Generator(),
            task=task,
        )
