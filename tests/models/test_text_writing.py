"""What models write, against a loop of one text and one token at a time."""

from dataclasses import replace

import pytest
import torch
from test_writers import MODELS, READING, WORDS, L, asked, build, records

from fedkd.models import call
from fedkd.models.text import writing
from fedkd.tasks.likelihoods.categorical import IGNORED


def sharpened(name):
    """A model that is sure of what it says, and ends some texts."""
    model = build(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
        model.words.classifier.bias[WORDS.end] = 4.0
    return model


def by_hand(model, x, task):
    """The likeliest token after each, one text at a time, the model asked anew each time."""
    reads = task.targets == "tokens"
    found = []
    for row in x:
        source = row[:L].tolist() if reads else []
        ids = [WORDS.start] if reads else [each for each in row.tolist() if each != WORDS.padding]
        while len(ids) < L and WORDS.end not in ids[1:]:
            shown = [*source, *ids, *[WORDS.padding] * (L - 1 - len(ids))]
            logits = call.answer(model, torch.tensor([shown]))[0, len(ids) - 1].clone()
            logits[[WORDS.padding, WORDS.start]] = -torch.inf
            ids.append(int(logits.argmax()))
        ids += [WORDS.padding] * (L - len(ids))
        found.append(ids[1:] if reads else ids)
    return torch.tensor(found)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_written_is_what_a_loop_of_single_tokens_writes(name):
    task, model = asked(name), sharpened(name)
    x = writing.begun(records(name, (6, 4, 1, 3, 5, 2)), task, 2)
    written = writing.write(model, x, task)
    assert torch.equal(written, by_hand(model, x, task))
    assert (written == WORDS.end).any()
    assert (written[:, -1] == WORDS.padding).any()


@pytest.mark.parametrize("name", MODELS)
def test_an_own_model_writes_as_one_of_the_house(name, monkeypatch):
    task, model = asked(name), sharpened(name)
    x = writing.begun(records(name), task, 2)
    expected = writing.write(model, x, task)
    own = torch.nn.Sequential(model)  # nothing is known of it but what it answers
    assert torch.equal(writing.write(own, x, task), expected)


def test_draws_follow_the_model_s_chances_and_the_generator_alone():
    task, model = asked("causal-transformer"), sharpened("causal-transformer")
    x = torch.full((4000, L - 1), WORDS.padding)
    x[:, 0], x[:, 1] = WORDS.start, 7
    draw = torch.Generator().manual_seed
    found = writing.write(model, x, task, generator=draw(0), temperature=2.0)
    assert torch.equal(found, writing.write(model, x, task, generator=draw(0), temperature=2.0))
    logits = call.answer(model, x[:1])[0, 1] / 2
    logits[[WORDS.padding, WORDS.start]] = -torch.inf
    shares = torch.bincount(found[:, 2], minlength=WORDS.size) / len(found)
    assert torch.allclose(shares, logits.softmax(dim=0), atol=0.03)
    assert (found[:, :2] == torch.tensor([WORDS.start, 7])).all()


@pytest.mark.parametrize("name", MODELS)
def test_what_was_written_becomes_records_of_which_only_that_counts(name):
    task = asked(name)
    if name in READING:
        x, written = records(name, (3,)), torch.tensor([[9, 8, 1, 3, 3, 3]])
        shown, y = writing.records(written, x, task)
        assert torch.equal(shown[:, :L], x[:, :L])
        assert shown[0, L:].tolist() == [0, 9, 8, 3, 3, 3]
        assert y[0].tolist() == [9, 8, 1, *[IGNORED] * 3]
    else:
        x = torch.tensor([[0, 5, 3, 3, 3, 3]])
        shown, y = writing.records(torch.tensor([[0, 5, 9, 8, 1, 3, 3]]), x, task)
        assert shown[0].tolist() == [0, 5, 9, 8, 3, 3]
        assert y[0].tolist() == [IGNORED, 9, 8, 1, IGNORED, IGNORED]


@pytest.mark.parametrize("name", MODELS)
def test_texts_are_written_where_padding_is_the_mark_of_the_end(name):
    task, model = asked(name), sharpened(name)
    x = writing.begun(records(name, (6, 4, 2)), task, 2)
    both = replace(WORDS, end=WORDS.padding)
    written = writing.write(model, x, replace(task, vocabularies={"": both}))
    assert ((written != WORDS.padding).sum(dim=1) > (1 if name in READING else 2)).all()
