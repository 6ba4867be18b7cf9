"""Privileged columns: every teacher sees them, the student never does, and methods do not know."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from federations import ROWS, SMALL, WIDE, Federation, equal, federation, samples, snapshot, tensors

from fedkd import config, methods
from fedkd.data.types import Samples
from fedkd.data.views import Sight
from fedkd.errors import ConfigError
from fedkd.learning import evaluate
from fedkd.methods import BUILT_IN

SEEN = (0, 2, 3)
HIDDEN = (1, 4)
TINY: dict[str, dict[str, Any]] = {
    "fedmd": {"public_per_round": 20, "student": {"epochs": 40, "learning_rate": 0.2}},
    "dsfl": {"public_per_round": 20, "student": {"epochs": 40, "learning_rate": 0.2}},
    "feddf": {"student": {"epochs": 40, "optimiser": "adam", "learning_rate": 0.01}},
}
TINY["fedproto"] = {"temperature": 0.1, "student": {"epochs": 40, "learning_rate": 0.2}}
TINY["fedkd"] = {}
ABLE = [name for name in BUILT_IN if methods.find(name).card.privileged]
DISTIL = [name for name in ABLE if name != "fedkd"]
"""Those whose server trains the student on the proxy set."""


def hiding(name: str, **changes: Any) -> Federation:
    """Three clients, some of whom have the student's architecture."""
    privileged = {"columns": ["b", "e"]}
    other = {"name": "mlp", "hidden": [9, 12]} if name == "fedproto" else WIDE  # equal widths
    models = [SMALL, other, SMALL]
    fed = federation({"name": name, **TINY[name]}, models=models, privileged=privileged, **changes)
    fed.setting = replace(fed.setting, seen=Sight.of_columns(SEEN))
    fed.student = fed.setting.student.build(fed.setting.experiment.student.model, purpose="student")
    return fed


def scrambled(x: torch.Tensor, columns: tuple[int, ...]) -> torch.Tensor:
    """The same rows, but for other values in some columns."""
    x = x.clone()
    x[:, list(columns)] = torch.rand(
        len(x), len(columns), generator=torch.Generator().manual_seed(4)
    )
    return x


def uploads(fed: Federation, round: int = 1) -> dict[int, dict[str, torch.Tensor]]:
    broadcast = fed.begin()
    return {i: fed.wire(i, fed.ask(i, round, broadcast)) for i in range(3)}


def test_every_method_that_says_so_is_tried() -> None:
    assert set(TINY) == set(ABLE)


@pytest.mark.parametrize("name", DISTIL)
def test_the_student_learns_the_same_whatever_the_hidden_columns_hold(name: str) -> None:
    """With the answers as they are; for FedDF, whose server asks the teachers, see below."""
    students = []
    for columns in ((), HIDDEN, SEEN[:1]):
        fed = hiding(name)
        sent = uploads(fed)
        changed = scrambled(fed.setting.proxy, columns)
        if name == "feddf":  # the server's own answers: teachers who do not look at what changes
            for upload in sent.values():
                for key, weights in upload.items():
                    if key.endswith("hidden1.weight"):
                        weights[:, list(HIDDEN)] = 0.0
        fed.setting = replace(fed.setting, public=changed)
        fed.method.server(fed.server_context(), sent)
        students.append(snapshot(fed.student))
    original, hidden, seen = students
    assert equal(original, hidden)
    assert not equal(original, seen)


@pytest.mark.parametrize("name", ABLE)
def test_teachers_learn_from_the_hidden_columns_and_answer_by_them(name: str) -> None:
    plain, other = hiding(name), hiding(name)
    other.data = [Samples(scrambled(d.x, HIDDEN), d.y) for d in other.data]
    for one, two in zip(uploads(plain).values(), uploads(other).values(), strict=True):
        assert not equal(one, two)
    if name in ("fedmd", "dsfl"):
        asked = hiding(name)
        asked.setting = replace(asked.setting, public=scrambled(asked.setting.proxy, HIDDEN))
        assert not equal(uploads(plain)[0], uploads(asked)[0])


@pytest.mark.parametrize("name", DISTIL)
def test_a_teacher_is_the_one_that_it_would_be_without_hiding(name: str) -> None:
    """Bitwise: what the student sees is the server's business alone."""
    hidden, open = hiding(name), hiding(name)
    open.setting = replace(open.setting, seen=None)
    open.student = open.setting.build(open.setting.experiment.student.model, purpose="student")
    assert all(
        equal(one, two)
        for one, two in zip(uploads(hidden).values(), uploads(open).values(), strict=True)
    )


@pytest.mark.parametrize("name", ABLE)
def test_the_student_is_better_than_chance_after_two_rounds(name: str) -> None:
    fed = hiding(name, rounds=2)
    broadcast = fed.begin()
    for number in (1, 2):
        broadcast, ctx = fed.round(number, broadcast)
    view = Samples(fed.setting.students_view(fed.test.x), fed.test.y)
    assert view.x.shape == (60, 3)
    ctx.measure()
    assert ctx.curve == [evaluate.accuracy(fed.student, view)]
    assert ctx.curve[0] > 0.5


def test_the_student_s_setting_is_its_view_of_shape_proxy_and_models() -> None:
    setting = hiding("fedmd").setting
    assert (setting.shape, setting.student.shape) == (ROWS, (3,))
    assert torch.equal(setting.student.proxy, setting.proxy[:, list(SEEN)])
    spec = setting.experiment.student.model
    weights = [
        s.model_specs(spec)["model/hidden1.weight"].shape for s in (setting, setting.student)
    ]
    assert weights == [(12, 5), (12, 3)]
    assert setting.student.student is setting.student
    without = replace(setting, seen=None)
    assert without.student is without
    x = samples(4, ROWS, 1).x
    assert without.students_view(x) is x


def test_a_mentor_sees_the_hidden_columns_and_its_mentee_does_not() -> None:
    fed = hiding("fedkd", rounds=1)
    ctx = fed.client_context(0)
    fed.method.client(ctx, fed.begin().to("", None))
    assert ctx.teacher.hidden1.weight.shape == (12, 5)
    assert ctx.state["mentee/hidden1.weight"].shape == (12, 3)


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name not in ABLE])
def test_a_method_that_cannot_hide_columns_refuses(name: str) -> None:
    table = {
        "name": "t",
        "data": {"public": {"size": 10}},
        "clients": {"count": 2, "models": ["mlp"], "privileged": {"columns": ["thal"]}},
        "student": {"model": "mlp"},
        "method": {"name": name},
    }
    with pytest.raises(ConfigError, match=rf"method '{name}' cannot hide .*fedmd, dsfl") as caught:
        methods.resolve(config.parse(table))
    assert "\n" not in str(caught.value)


def test_a_client_without_any_hidden_value_joins_as_any_other() -> None:
    fed = hiding("fedmd", rounds=1)
    x = fed.data[1].x.clone()
    x[:, list(HIDDEN)] = 0.0
    fed.data[1] = Samples(x, fed.data[1].y)
    sent = uploads(fed)
    assert sent[1]["logits"].shape == sent[0]["logits"].shape
    assert sent[1]["logits"].isfinite().all()
    fed.method.server(fed.server_context(), sent)
    assert all(weights.isfinite().all() for weights in fed.student.state_dict().values())
    assert list(tensors(fed.ask(1, 1, fed.begin()))) == ["logits"]
