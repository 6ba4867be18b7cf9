import copy

import pytest
import torch
import torch.nn.functional as F
from taught import ALONE, OF_CLASSES, SHAPE, a_student, a_teacher, between, build, samples

from fedkd.config import Optimisation
from fedkd.errors import ConfigError
from fedkd.learning import forms
from fedkd.learning.dp import distil
from fedkd.learning.dp.checks import check_model
from fedkd.learning.dp.per_sample import PerSample
from fedkd.learning.dp.sgd import Noise
from fedkd.learning.offline import asking
from fedkd.models.layers import LOGITS, forward_with

ALL = Noise(noise_multiplier=1e-9, clip=5.0, sample_rate=1.0, batch_size=1)
STUDENTS = {
    "layer without weights": {"name": "mlp", "hidden": [6, 5]},
    "block": {"name": "resnet8", "width": 2, "norm": "group"},
}
LAYER = {"layer without weights": "relu2", "block": "stage2"}


def gradients(student, terms, teacher, data, rows, labels=0.5):
    """What Opacus says of the gradient of each of `rows`: by the parameter, student's first."""
    with distil.flat_answers(student, terms) as model:
        loss = distil.record_loss(
            model, terms, asking(teacher, data.x, terms.teacher), data.y, labels
        )
        with PerSample(model) as per_sample:
            return per_sample.gradients(data.x[rows], rows, loss)


def one_by_one(student, terms, teacher, data, rows, labels=0.5):
    """Slow and obviously right: a forward and a backward pass for each record alone."""
    learned = [*student.parameters(), *terms.learned.parameters()]
    found = []
    for row in rows:
        x, y = data.x[row : row + 1], data.y[row : row + 1]
        seen, told = (
            forward_with(student, x, terms.student),
            forward_with(teacher, x, terms.teacher),
        )
        value = labels * F.cross_entropy(seen[LOGITS], y) + terms(seen, told, y)
        slopes = torch.autograd.grad(value, learned, allow_unused=True, materialize_grads=True)
        found.append(slopes)
    return [torch.stack(each) for each in zip(*found, strict=True)]


@pytest.mark.parametrize("kind", STUDENTS)
@pytest.mark.parametrize("name", ALONE)
def test_each_record_has_the_gradient_that_it_has_alone(name, kind):
    maps = forms.find(name).looks_at == "maps"
    if maps and kind == "layer without weights":
        pytest.skip("an MLP gives no maps")
    student, teacher, data = build(STUDENTS[kind], seed=2), a_teacher(), samples()
    logits = forms.find(name).looks_at in ("logits", "answers")
    terms = between(
        student, teacher, {"name": name, **({} if logits else {"student": LAYER[kind]})}
    )
    rows = torch.tensor([5, 2, 9, 0])
    found = gradients(student, terms, teacher, data, rows)
    wanted = one_by_one(student.train(), terms, teacher, data, rows)
    assert len(found) == len(wanted)
    for mine, right in zip(found, wanted, strict=True):
        assert torch.allclose(mine, right, rtol=1e-3, atol=1e-5 * right.abs().max().clamp_min(1))
    assert sum(each.abs().sum() for each in wanted) > 0


def test_a_layer_with_weights_of_its_own_is_looked_at_without_losing_its_gradient():
    student, teacher, data = build(STUDENTS["block"], seed=2), a_teacher(), samples()
    terms = between(
        student,
        teacher,
        {"name": "fitnets", "student": "stage1.conv2"},
        {"name": "at", "student": ["stage1", "conv"], "teacher": ["conv1", "conv1"]},
    )
    rows = torch.tensor([1, 4])
    found = gradients(student, terms, teacher, data, rows)
    for mine, right in zip(
        found, one_by_one(student.train(), terms, teacher, data, rows), strict=True
    ):
        assert torch.allclose(mine, right, rtol=1e-3, atol=1e-5 * right.abs().max().clamp_min(1))


def test_another_record_does_not_change_a_records_gradient():
    student, teacher, data = build(STUDENTS["block"], seed=2), a_teacher(), samples()
    terms = between(student, teacher, *({"name": name} for name in ALONE))
    other = copy.deepcopy(data)
    other.x[7], other.y[7] = 1 - other.x[7], 2 - other.y[7]
    rows = torch.tensor([3, 7])
    mine, theirs = (gradients(student, terms, teacher, each, rows) for each in (data, other))
    for one, two in zip(mine, theirs, strict=True):
        assert torch.allclose(one[0], two[0], rtol=1e-4, atol=1e-4 * one[0].abs().max())
    assert any(not torch.allclose(one[1], two[1]) for one, two in zip(mine, theirs, strict=True))


def test_without_noise_a_step_is_the_step_of_plain_gradient_descent():
    student, teacher, data = build(STUDENTS["block"], seed=2), a_teacher(), samples()
    terms = between(student, teacher, {"name": "kd"}, {"name": "fitnets", "weight": 0.1})
    wanted = one_by_one(student.train(), terms, teacher, data, torch.arange(len(data)))
    before = [each.clone() for each in student.parameters()]
    adapters = [each.clone() for each in terms.learned.parameters()]
    told = []
    how = Optimisation(epochs=1, learning_rate=1e-3, momentum=0.0)
    distil.teach(
        student,
        teacher,
        terms,
        data,
        how,
        ALL,
        labels=0.5,
        on_epoch=lambda epoch, loss: told.append((epoch, loss)),
    )
    after = [*student.parameters(), *terms.learned.parameters()]
    for old, new, slopes in zip([*before, *adapters], after, wanted, strict=True):
        step = 1e-3 * slopes.sum(dim=0)
        assert torch.allclose(old - new, step, atol=2e-3 * step.abs().max() + 2e-7)
    assert [epoch for epoch, _ in told] == [1]
    assert told[0][1] != told[0][1]  # no loss comes out


def test_the_student_is_as_it_was_afterwards_even_if_training_fails():
    student = build(STUDENTS["block"], seed=2)
    names = [name for name, _ in student.named_modules()]
    terms = between(student, a_teacher(), {"name": "at", "student": "stage1.conv1"})
    inside = []

    def fail():
        with distil.flat_answers(student, terms) as model:
            inside.extend(type(each) for each in model.modules())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert distil.Tap in inside
    assert [name for name, _ in student.named_modules()] == names


def test_a_student_that_shares_statistics_is_refused_with_what_is_looked_at():
    student = a_student("batch")
    terms = between(student, a_teacher(), {"name": "fitnets"})
    with (
        distil.flat_answers(student, terms) as model,
        pytest.raises(ConfigError, match="statistics"),
    ):
        check_model(model, SHAPE)


@pytest.mark.parametrize("name", [name for name in OF_CLASSES if name not in ALONE])
def test_forms_that_cannot_be_protected_are_refused_with_the_reason(name):
    reason = "several layers" if forms.find(name).joint else "nothing pays for"
    if forms.find(name).couples:
        reason = "compares the samples of a batch"
    with pytest.raises(ConfigError, match=rf"knowledge\[1\] \({name}\).*{reason}.*kd, dkd, jsd"):
        distil.check_forms(["kd", name])


def test_the_others_are_not_refused():
    distil.check_forms(ALONE)
    assert {"kd", "dkd", "jsd", "fitnets", "at", "vid", "nst", "ctkd", "wkd-l", "ofa"} <= set(ALONE)
