"""Candidates, reference models, and the attacks on answers."""

import pytest
import torch
from torch import nn

from fedkd.auditing import inversion, labels, references
from fedkd.auditing.candidates import draw
from fedkd.auditing.structure import check_messages
from fedkd.data.types import Samples, joined


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def data(size=100, seed=0):
    draws = generator(seed)
    return Samples(
        torch.rand(size, 1, 6, 6, generator=draws), torch.randint(3, (size,), generator=draws)
    )


def test_candidates_are_taken_out_of_the_data_and_half_are_learnt():
    whole = data()
    rest, taken = draw(whole, 40, "records", classes=3, generator=generator(1))
    assert (len(rest), len(taken)) == (60, 40)
    assert 8 <= taken.included.sum() <= 32
    together = joined(rest, taken.samples)
    assert torch.equal(
        together.x.sum(dim=(1, 2, 3)).sort().values, whole.x.sum(dim=(1, 2, 3)).sort().values
    )
    assert len(taken.learnt) == taken.included.sum()


@pytest.mark.parametrize("kind", ["records", "mislabelled", "out-of-distribution"])
def test_candidates_come_in_stages_as_the_data_does(kind):
    whole = data()
    whole = Samples(whole.x, whole.y, torch.arange(100) % 2)
    rest, taken = draw(whole, 40, kind, classes=3, generator=generator(1))
    together = joined(rest, taken.samples)
    parts = [len(together.of_stage(stage)) for stage in (0, 1)]
    assert sum(parts) == len(together)
    assert all(len(taken.samples.of_stage(stage)) for stage in (0, 1))


def test_no_more_than_half_of_the_data_are_candidates():
    rest, taken = draw(data(), 90, "records", classes=3, generator=generator(1))
    assert (len(rest), len(taken)) == (50, 50)


def test_odd_candidates_are_odd():
    whole = data()
    _, wrong = draw(whole, 40, "mislabelled", classes=3, generator=generator(1))
    truth = {float(x.sum()): int(y) for x, y in zip(whole.x, whole.y, strict=True)}
    assert all(
        truth[float(x.sum())] != int(y)
        for x, y in zip(wrong.samples.x, wrong.samples.y, strict=True)
    )
    rest, strange = draw(whole, 40, "out-of-distribution", classes=3, generator=generator(1))
    assert rest is whole
    assert not any(torch.equal(x, other) for x in strange.samples.x for other in whole.x)


def test_each_candidate_is_in_one_reference_of_a_pair():
    learnt = []

    def fit(samples, number):
        learnt.append((number, len(samples)))
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 3))

    asked, done = data(30, seed=1), []
    told = references.train(
        fit,
        data(20),
        asked,
        data(10, seed=2),
        count=4,
        generator=generator(),
        advance=lambda: done.append(1),
    )
    assert told.odds.shape == told.included.shape == (4, 30)
    assert told.population.shape == (4, 10)
    assert (told.included[0] != told.included[1]).all()
    assert [size for _, size in learnt] == [20 + int(row.sum()) for row in told.included]
    assert [number for number, _ in learnt] == [0, 1, 2, 3]
    assert len(done) == 4


def test_who_leans_to_a_class_is_found_to_hold_it():
    draws = generator()
    counts = torch.tensor([[90, 5, 5], [5, 90, 5], [5, 5, 90]])
    noise = torch.randn(3, 200, 3, generator=draws)
    answers = {client: noise[client] + 2 * torch.eye(3)[client] for client in range(3)}
    told = labels.infer(answers, counts)
    assert told.error < 0.3 < told.blind
    assert torch.equal(told.guessed.argmax(dim=1), torch.arange(3))
    blind = labels.infer(dict.fromkeys(range(3), noise[0]), counts)
    assert blind.error == pytest.approx(blind.blind, abs=0.05)


def test_images_that_answers_give_away_are_drawn(monkeypatch):
    """A client whose logits are the image itself: the way back is there to be learnt."""
    monkeypatch.setattr(inversion, "_STEPS", 200)  # the decoder is off by 0.008 by then
    draws = generator()
    prototypes = torch.rand(3, 1, 4, 4, generator=draws)
    y = torch.arange(3).repeat(100)
    public = (prototypes[y] + 0.05 * torch.randn(300, 1, 4, 4, generator=draws)).clamp(0, 1)
    own_style = prototypes.flip(2)  # what the client's records look like, unlike the public's
    mine = Samples(own_style.repeat(20, 1, 1, 1), torch.arange(3).repeat(20))
    foreign = Samples(prototypes.repeat(20, 1, 1, 1), torch.arange(3).repeat(20))
    sure, vague = 8 * torch.eye(3)[y], 2 * torch.eye(3)[y]
    told = inversion.invert(0, public, sure, vague, mine, foreign, generator=draws)
    assert told.classes == (0, 1, 2)
    drawn_public = (told.drawn - prototypes).square().mean().sqrt()
    assert drawn_public < 0.1  # the decoder draws what the pair stands for
    assert told.nearer == 0.0  # and that is nobody's private record
    assert all(distance > 0.2 for distance in told.distances)
    nothing = inversion.invert(0, public, sure, vague, data(0), foreign, generator=draws)
    assert nothing is None


@pytest.mark.parametrize(
    ("receipts", "recorded", "outcome"),
    [
        ([("logits", "post-processing of training")], ["logits"], "CONSISTENT"),
        ([("logits", "post-processing of training, no DP")], ["logits"], "VIOLATION"),
        ([("logits", "public")], ["logits", "histogram"], "VIOLATION"),
        ([("model", "public")], ["model/w", "model/b"], "CONSISTENT"),
    ],
)
def test_a_field_that_nobody_paid_for_is_found(receipts, recorded, outcome):
    assert check_messages(receipts, recorded).outcome == outcome
