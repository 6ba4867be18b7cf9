"""Methods that ask nothing of a task learn numbers as they learn classes."""

from typing import Any

import pytest
import torch
import toy_regression
from federations import SMALL, STILL, WIDE, Federation, federation

from fedkd.errors import ConfigError
from fedkd.exchange.messages import prefixed
from fedkd.learning import evaluate
from fedkd.methods import check_task

LEARN = {"epochs": 20, "batch_size": 8, "learning_rate": 0.1}


def of_numbers(
    method: dict[str, Any] | str, *, training: dict[str, Any] = LEARN, **changes: Any
) -> Federation:
    return federation(
        method,
        draw=toy_regression.samples,
        outputs=toy_regression.NUMBERS,
        task={"name": "toy_regression:KIND"},
        training=training,
        **changes,
    )


def error(fed: Federation) -> float:
    """The student's mean squared error over that of the best constant."""
    answers = evaluate.answers(fed.student, fed.test.x)
    spread = fed.test.y.var(dim=0, correction=0).mean()
    return float((answers - fed.test.y).square().mean() / spread)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("fedavg", {}),
        ({"name": "fedprox", "mu": 0.01}, {}),
        ("centralised", {}),
        ("local", {}),
        ({"name": "fedmd", "student": LEARN}, {"models": [SMALL, WIDE]}),
        ({"name": "fedmd", "student": LEARN, "loss": "mae"}, {}),
        ({"name": "feddf", "student": LEARN}, {"models": [SMALL, WIDE]}),
        ("fedkd", {"training": {**LEARN, "learning_rate": 0.02}}),
    ],
    ids=str,
)
def test_the_student_learns_numbers(method: dict[str, Any] | str, changes: dict[str, Any]) -> None:
    fed = of_numbers(method, rounds=3, **changes)
    fed.method.check(fed.setting)
    before, broadcast = error(fed), fed.begin()
    for number in (1, 2, 3):
        broadcast, _ = fed.round(number, broadcast)
    assert error(fed) < 0.3 < before


def test_numbers_cross_the_wire_whole_where_float16_has_no_room_for_them() -> None:
    fed = of_numbers("fedmd", training=STILL)
    teacher = fed.setting.build(fed.setting.experiment.client_model(0), purpose="teacher")
    with torch.no_grad():
        list(teacher.parameters())[-1].fill_(1e6 + 1)  # the last bias
    fed.states[0] = prefixed("teacher", teacher.state_dict())
    answers = evaluate.answers(teacher, fed.setting.proxy)
    assert answers.min() > 9e5
    received = fed.wire(0, fed.ask(0, 1, fed.begin()))["logits"]
    torch.testing.assert_close(received, answers, rtol=1e-5, atol=0)
    consensus = fed.method.server(fed.server_context(), {0: {"logits": received}}).common
    torch.testing.assert_close(consensus["consensus"], answers, rtol=1e-5, atol=0)


def test_a_loss_that_nobody_named_is_the_task_s_own_and_one_of_classes_is_refused() -> None:
    assert of_numbers("fedmd").method.params.loss == "divergence"
    assert federation("fedmd").method.params.loss == "kd"
    for name in ("fedmd", "feddf"):
        fed = of_numbers({"name": name, "loss": "dkd"})
        with pytest.raises(
            ConfigError, match=r"'dkd'.*has none: choose one of mae, angular, divergence$"
        ):
            fed.method.check(fed.setting)


def test_images_are_made_up_of_classes_alone() -> None:
    fed = of_numbers("feddf", shape=(1, 8, 8), public=None)
    with pytest.raises(ConfigError, match="task 'toy-regression' has none: add a section"):
        fed.method.check(fed.setting)


def test_methods_of_classes_are_refused_and_an_offset_too() -> None:
    fed = of_numbers("dsfl")
    with pytest.raises(ConfigError, match=r"asks for categorical.*choose one of local, "):
        check_task(fed.method, "dsfl", fed.setting.task)
    ctx = fed.client_context(0)
    with pytest.raises(ValueError, match=r"offset \(2,\) is added to logits of classes"):
        ctx.train(offset=torch.zeros(2))
