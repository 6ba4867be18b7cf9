"""FedMD's answers over many classes: the likeliest alone cross the wire, both ways."""

import pytest
import torch
from federations import CLASSES, SMALL, WIDE, federation, snapshot, tensors

from fedkd.errors import ConfigError

HOW = {"epochs": 2, "batch_size": 8, "learning_rate": 0.05}


def ran(**chosen):
    method = {"name": "fedmd", "student": HOW, "digest": HOW, **chosen}
    return federation(method, models=[SMALL, WIDE], rounds=2)


def test_ids_and_values_are_sent_and_the_student_learns_next_to_the_same():
    # Two of three classes and the rest say all that three say.
    few, all_of_them = ran(top=2), ran()
    assert set(tensors(few.ask(0, 1, few.begin()))) == {"logits/ids", "logits/values"}
    students = []
    for fed in (ran(top=2), all_of_them):
        broadcast, _ = fed.round(1, fed.begin())
        students.append(snapshot(fed.student))
        fed.round(2, broadcast)
        assert all(torch.isfinite(each).all() for each in fed.student.state_dict().values())
    assert set(students[0]) == set(students[1])
    for name, weight in students[0].items():
        assert torch.allclose(weight, students[1][name], atol=0.05)


def test_more_classes_than_there_are_is_refused():
    fed = ran(top=CLASSES)
    with pytest.raises(ConfigError, match=r"method.top is 3: expected fewer than the 3 numbers"):
        fed.method.check(fed.setting)
