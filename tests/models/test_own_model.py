import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from fedkd import models, tasks
from fedkd.config import ModelSpec, TaskChoice
from fedkd.errors import ConfigError
from fedkd.models import call
from fedkd.tasks import Task

TASK = tasks.build(TaskChoice(), inputs=(4,), names=("a", "b", "c"))


class Linear(nn.Module):
    def __init__(self, shape: tuple[int, ...], classes: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.layer = nn.Linear(shape[0], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * self.layer(x)


def too_wide(shape: tuple[int, ...], classes: int) -> nn.Module:
    return Linear(shape, classes + 1)


def narrow(shape: tuple[int, ...], classes: int) -> nn.Module:
    return Linear((1,), classes)


class Counting(nn.Module):
    """As most people write one."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.layer = nn.Linear(4, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def by_shape(shape: tuple[int, ...]) -> nn.Module:
    return Linear(shape, 3)


def by_task(task: Task) -> nn.Module:
    assert task.offers >= {"classes", "features"}
    return Linear(task.inputs, task.classes)


def fixed() -> nn.Module:
    return Linear((4,), 3)


def by_keywords(**asked: Any) -> nn.Module:
    return Linear(**asked)


def no_module(shape: tuple[int, ...], classes: int) -> int:
    return shape[0] * classes


@pytest.fixture
def mine() -> Iterator[str]:
    module = ModuleType("my_models")
    made = (Linear, too_wide, narrow, no_module, Counting, by_shape, by_task, fixed, by_keywords)
    for item in made:
        setattr(module, item.__name__, item)
    module.number = 3  # type: ignore[attr-defined]
    sys.modules["my_models"] = module
    yield "my_models"
    del sys.modules["my_models"]


def built(name: str, **options: Any) -> nn.Module:
    spec = ModelSpec.model_validate({"name": name, **options})
    draws = torch.Generator().manual_seed(0)
    return models.build(spec, shape=(4,), classes=3, generator=draws, task=TASK)


def test_a_model_by_import_path_gets_shape_classes_and_options(mine: str) -> None:
    model, again = built(f"{mine}:Linear", scale=2.5), built(f"{mine}:Linear", scale=2.5)
    assert isinstance(model, Linear)
    assert model.scale == 2.5
    assert model.training
    assert torch.equal(model.layer.weight, again.get_parameter("layer.weight"))


@pytest.mark.parametrize("name", ["Counting", "by_shape", "by_task", "fixed", "by_keywords"])
def test_a_factory_gets_what_it_asks_for_and_no_more(mine: str, name: str) -> None:
    assert built(f"{mine}:{name}")(torch.zeros(2, 4)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("no_such_module:Net", {}, "cannot be imported: ModuleNotFoundError: No module"),
        (":Net", {}, "cannot be imported"),
        ("my_models:Missing", {}, "cannot be imported"),
        ("my_models:number", {}, "is 'int': expected a class or a function"),
        ("my_models:Linear", {"depth": 3}, "unexpected keyword argument 'depth'"),
        ("my_models:no_module", {}, "returned 'int': expected a torch.nn.Module"),
        ("my_models:too_wide", {}, "turns 2 inputs into (2, 4): expected logits (2, 3)"),
        ("my_models:narrow", {}, "cannot take inputs of shape (4,)"),
    ],
)
def test_misfits_are_named(mine: str, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        built(name, **options)
    assert repr(name) in str(caught.value)


class AsksForMore(torch.nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        raise KeyError("no such weight")


class Asserts(torch.nn.Module):
    def __init__(self, shape, classes):
        super().__init__()

    def forward(self, x):
        raise AssertionError


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("builtins:dict", "expected a torch.nn.Module"),
        (".rel:X", "cannot be imported"),
        (f"{__name__}:AsksForMore", "KeyError"),
        (f"{__name__}:Asserts", "cannot take inputs"),
    ],
)
def test_whatever_goes_wrong_in_a_users_model_is_one_clear_error(name, complaint):
    with pytest.raises(ConfigError, match=complaint) as raised:
        models.build(
            ModelSpec(name=name), shape=(3,), classes=2, generator=torch.Generator().manual_seed(0)
        )
    assert "\n" not in str(raised.value)


def test_a_model_too_large_to_allocate_is_one_clear_error():
    spec = ModelSpec(name="mlp", hidden=[10**12])
    with pytest.raises(ConfigError, match="cannot be built"):
        models.build(spec, shape=(3,), classes=2, generator=torch.Generator().manual_seed(0))


class OneNumber(torch.nn.Module):
    """Answers (N,), as a regression of torch's tutorials does."""

    def __init__(self, shape):
        super().__init__()
        self.layer = torch.nn.Linear(shape[0], 1)

    def forward(self, x):
        return self.layer(x).squeeze(1)


def one_number(targets: str, answer: int, offers: set[str]) -> torch.nn.Module:
    names = tuple("ab"[:answer])
    task = Task("mine", (3,), (answer,), targets, names, None, (), frozenset(offers))
    spec, draws = ModelSpec(name=f"{__name__}:OneNumber"), torch.Generator().manual_seed(0)
    return models.build(spec, shape=(3,), classes=answer, generator=draws, task=task)


def test_one_number_an_input_is_itself_unless_there_are_two_classes():
    x = torch.randn(5, 3)
    number = one_number("numbers", 1, {"features"})
    assert torch.equal(call.answer(number, x), number.layer(x))
    odds = one_number("classes", 2, {"classes", "categorical"})
    assert torch.equal(call.answer(odds, x)[:, 1:], odds.layer(x))
    with pytest.raises(ConfigError, match=r"into \(2, 1\): expected .*\(2, 2\)"):
        one_number("numbers", 2, {"features"})
    with pytest.raises(ConfigError, match=r"into \(2, 1\): expected .*\(2, 2\)"):
        one_number("binary", 2, set())
