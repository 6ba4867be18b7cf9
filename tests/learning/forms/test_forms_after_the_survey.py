"""Forms that came after the survey of 2022; what all forms do is in test_forms.py."""

import dataclasses

import pytest
import torch
from taught import a_student, a_teacher, between, build, samples
from torch import nn

from fedkd.config import Optimisation
from fedkd.errors import ConfigError
from fedkd.knowledge import label
from fedkd.learning import forms, offline
from fedkd.learning.forms.one_for_all import OneForAll
from fedkd.learning.forms.review import Review
from fedkd.models.layers import LOGITS, forward_with
from fedkd.tasks.likelihoods.categorical import CATEGORICAL, IGNORED


def values(term, student, teacher, data):
    seen = forward_with(student, data.x, term.student)
    return term(seen, forward_with(teacher, data.x, term.teacher), data.y)


def test_a_wrong_teacher_or_grid_is_refused_when_layers_are_known():
    student = a_student()
    for table, teacher, message in [
        ({"name": "wkd-f", "grid": 9}, a_teacher(), "grid = 9: expected at most 3"),
        ({"name": "reviewkd", "student": ["", "stage1"]}, a_teacher(), "unknown layer ''"),
        ({"name": "wkd-l"}, nn.Sequential(nn.Flatten(), nn.LazyBatchNorm1d()), "found none"),
        ({"name": "wkd-l"}, nn.Sequential(nn.Flatten(), nn.Linear(144, 5), Cut()), "5 outputs"),
    ]:
        with pytest.raises(ConfigError, match=message):
            between(student, teacher, table)


class Cut(nn.Module):
    """The first three of what comes in."""

    def forward(self, x):
        return x[:, :3]


def test_a_curriculum_s_temperature_rises_to_where_the_student_is_worst_and_more_so_later():
    student, teacher, data = a_student("group"), a_teacher(), samples()
    built = between(student, teacher, {"name": "ctkd", "epochs": 2})
    [raw] = built.learned.parameters()
    [term] = built.all
    ended, slopes = built.following(None), []
    for epoch in range(3):
        (slope,) = torch.autograd.grad(values(term, student, teacher, data).mean(), raw)
        slopes.append(slope.item())
        ended(epoch + 1, 0.0)
    assert slopes[0] < 0  # down for who descends is up for the loss: T^2 KL grows with T here
    assert slopes[1] == pytest.approx(2 * slopes[0], rel=1e-4)
    assert slopes[2] == pytest.approx(slopes[1], rel=1e-4)


def test_offline_training_walks_the_curriculum():
    student, teacher, data = a_student(), a_teacher(), samples()
    told = []
    built = between(student, teacher, {"name": "ctkd"})
    begin = built.all[0].compared.begin
    heard = dataclasses.replace(built.all[0].compared, begin=lambda e: (told.append(e), begin(e)))
    built.all = (dataclasses.replace(built.all[0], compared=heard),)
    how = Optimisation(epochs=2, batch_size=12, learning_rate=1e-4)
    offline.teach(student, teacher, built, data, how, torch.Generator().manual_seed(0))
    assert told == [1, 2, 3]


def test_negatives_of_crd_are_of_other_classes():
    student, teacher, data = a_student("group").eval(), a_teacher(), samples()
    [term] = between(student, teacher, {"name": "crd"}).all
    alike = dataclasses.replace(data, y=torch.ones_like(data.y))
    assert (values(term, student, teacher, data) > 0).all()
    assert values(term, student, teacher, alike).abs().max() == 0


def test_an_unlike_teacher_teaches_layers_by_its_answers_alone():
    student, teacher, data = build({"name": "mlp", "hidden": [6, 5]}), a_teacher(), samples()
    [term] = between(student, teacher, {"name": "ofa", "student": ["relu1", "relu2"]}).all
    seen = forward_with(student, data.x, term.student)
    told = forward_with(teacher, data.x, term.teacher)
    assert list(told) == [LOGITS]
    by_hand = sum(
        label.one_for_all(branch(seen[name]), told[LOGITS], data.y)
        for branch, name in zip(term.compared.student, ["relu1", "relu2", LOGITS], strict=True)
    )
    assert torch.allclose(values(term, student, teacher, data), by_hand)


@pytest.mark.parametrize("name", ["logit-standardisation", "mlkd", "ctkd", "wkd-l"])
def test_newer_forms_of_answers_leave_out_places_that_do_not_count(name):
    params = forms.find(name).Params()
    compared = forms.find(name).compared(
        params, [(2, 3)], [(2, 3)], torch.Generator(), CATEGORICAL, torch.eye(3)
    )
    draw = torch.Generator().manual_seed(1)
    ours, theirs = torch.randn(2, 4, 2, 3, generator=draw)
    y = torch.tensor([[0, 1], [2, IGNORED], [IGNORED, IGNORED], [1, 1]])
    unlike = torch.where((y == IGNORED)[..., None], torch.nan, ours)
    value, same = (
        compared.loss([compared.student[0](each)], [theirs], y) for each in (ours, unlike)
    )
    assert torch.equal(value, same)
    assert value.shape in ((), (4,))
    assert value.isfinite().all()
    if name != "mlkd":
        assert value[2] == 0


@pytest.mark.parametrize(
    ("bias", "own"), [([99.0, -99.0], 1.0), ([-99.0, 99.0], 0.0), ([0, 0], 0.5)]
)
def test_a_review_mixes_a_layer_with_what_the_deeper_one_became(bias, own):
    review = Review([(2, 4, 4), (2, 2, 2)], [(2, 4, 4), (2, 3, 3)])
    with torch.no_grad():
        for narrow, widen in zip(review.narrow, review.widen, strict=True):
            for layer in (narrow, widen):
                nn.init.dirac_(layer.weight)
                nn.init.zeros_(layer.bias)
        nn.init.zeros_(review.attend[0].weight)
        review.attend[0].bias.copy_(torch.tensor(bias))
    shallow, deep = torch.rand(1, 2, 4, 4), torch.rand(1, 2, 2, 2)
    first, last = review([shallow, deep])
    wide = deep[:, :, [0, 0, 1]][:, :, :, [0, 0, 1]]  # two places onto three, the nearest below
    assert torch.equal(last, wide)
    rows = [0, 0, 1, 2]  # and three onto four
    theirs = wide[:, :, rows][:, :, :, rows]
    assert torch.allclose(first, own * shallow + (1 - own) * theirs)


def test_a_layer_of_tokens_answers_by_their_mean():
    compared = forms.find("ofa").compared(
        OneForAll(), [(5, 4), (3,)], [(3,)], torch.Generator().manual_seed(0), CATEGORICAL
    )
    states = torch.randn(2, 5, 4)
    shuffled = states[:, [3, 1, 4, 0, 2]]
    branch = compared.student[0]
    assert branch(states).shape == (2, 3)
    assert torch.allclose(branch(states), branch(shuffled), atol=1e-6)
