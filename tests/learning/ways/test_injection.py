import copy

import pytest
import torch
from taught import SHAPE, a_student, a_teacher, build, samples

from fedkd.config import Optimisation
from fedkd.errors import ConfigError
from fedkd.learning import supervised
from fedkd.learning.ways.injection import inject
from fedkd.models.layers import forward_with, inspect_layers

FIVE = Optimisation(epochs=5, batch_size=6, learning_rate=0.05)


def injected(student, teacher, **how):
    generator = torch.Generator().manual_seed(0)
    how = {"layer": "stage1", "block": "norm2", **how}
    return inject(student, teacher, SHAPE, generator, **how)


def test_the_block_works_between_adapters_that_fit_widths_and_sizes():
    teacher, x = a_teacher(), torch.rand(3, *SHAPE)
    student = injected(a_student(), teacher, layer="stage2").eval()
    seen = forward_with(student, x, ["stage1", "stage2.enter", "stage2.block", "stage2"])
    assert torch.equal(seen["stage2.block"], teacher.norm2(seen["stage2.enter"]))
    assert torch.equal(seen["stage2"], student.stage2.leave(seen["stage2.block"]))
    assert seen["stage2.enter"].shape == (3, 32, 6, 6)
    assert seen["stage2"].shape == (3, 4, 6, 6)
    assert inspect_layers(student, SHAPE).shapes[""] == (3,)


def test_the_block_may_follow_the_students_own_layer():
    plain, teacher = a_student().eval(), a_teacher()
    student = injected(copy.deepcopy(plain), teacher, place="after").eval()
    x = torch.rand(3, *SHAPE)
    own = forward_with(student, x, ["stage1.0", "stage1"])
    assert torch.equal(own["stage1.0"], forward_with(plain, x, ["stage1"])["stage1"])
    assert own["stage1"].shape == own["stage1.0"].shape


@pytest.mark.parametrize("trainable", [False, True])
def test_a_fixed_block_stays_bitwise_and_the_teacher_always(trainable):
    teacher, data = a_teacher(), samples()
    before = copy.deepcopy(teacher.state_dict())
    student = injected(a_student(), teacher, trainable=trainable)
    enter = student.stage1.enter[1].weight.clone()
    supervised.train(student, data, FIVE, torch.Generator().manual_seed(0))
    assert all(torch.equal(each, before[key]) for key, each in teacher.state_dict().items())
    block = student.stage1.block.state_dict()
    same = [torch.equal(each, before[f"norm2.{key}"]) for key, each in block.items()]
    assert all(same) if not trainable else not any(same)
    assert not torch.equal(student.stage1.enter[1].weight, enter)


def test_a_student_with_a_block_in_it_is_saved_and_loaded_as_any_other():
    one, two = (injected(a_student(), a_teacher()) for _ in range(2))
    supervised.train(one, samples(), FIVE, torch.Generator().manual_seed(0))
    two.load_state_dict(one.state_dict())
    x = torch.rand(3, *SHAPE)
    assert torch.equal(one.eval()(x), two.eval()(x))


def test_rows_are_fitted_by_linear_layers():
    teacher = build({"name": "mlp", "hidden": [20, 30]}).eval()
    student = injected(
        build({"name": "mlp", "hidden": [5, 6]}), teacher, layer="hidden2", block="hidden2"
    )
    assert student.eval()(torch.rand(2, *SHAPE)).shape == (2, 3)
    assert student.hidden2.enter[1].weight.shape == (20, 5)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"layer": "stage_1"}, "'stage_1': did you mean 'stage1'"),
        ({"block": "norm"}, "'norm': did you mean 'norm2'"),
    ],
)
def test_a_misspelt_layer_or_block_is_named(how, message):
    with pytest.raises(ConfigError, match=message):
        injected(a_student(), a_teacher(), **how)
