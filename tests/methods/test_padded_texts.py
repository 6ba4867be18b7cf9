"""What stands at a text's padding says nothing, on the wire and in a consensus."""

import pytest
import torch
from federations import Federation, table, tensors

from fedkd import config, methods, tasks
from fedkd.data.types import Samples
from fedkd.methods.core.base import Setting
from fedkd.tasks import Task, Vocabulary

WORDS = Vocabulary(size=12, padding=3, start=0, end=1)
MODEL = {"name": "bilstm", "width": 4, "hidden": 4}


def tagged(count: int, task: Task, seed: int) -> Samples:
    """Texts of one to six tokens."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randint(4, WORDS.size, (count, *task.inputs), generator=draw)
    y = torch.randint(0, 3, (count, *task.inputs), generator=draw)
    beyond = torch.arange(task.inputs[0]) > torch.arange(count)[:, None] % task.inputs[0]
    return Samples(x.masked_fill(beyond, WORDS.padding), y.masked_fill(beyond, -100))


def federation(method: dict[str, object]) -> Federation:
    told = table(
        method, models=[MODEL], student=MODEL, task={"name": "tagging"}, public={"size": 9}
    )
    experiment = config.parse(told)
    names = ("O", "B-X", "I-X")
    asked = tasks.build(experiment.task, inputs=(6,), names=names, vocabularies={"": WORDS})
    chosen, experiment = methods.resolve(experiment, task=asked)
    setting = Setting(experiment, asked, 2, tagged(9, asked, 50).x)
    student = setting.build(experiment.student.model, purpose="student")
    data = [tagged(8, asked, seed) for seed in range(2)]
    return Federation(chosen, setting, data, tagged(8, asked, 99), student)


@pytest.mark.parametrize(
    ("method", "sent", "returned"),
    [
        ({"name": "dsfl"}, "probabilities", "aggregate"),
        ({"name": "dsfl", "loss": "kd"}, "probabilities", "aggregate"),
        ({"name": "fedmd"}, "logits", "consensus"),
    ],
    ids=str,
)
def test_nothing_is_said_at_padding(method: dict[str, object], sent: str, returned: str) -> None:
    fed = federation(method)
    padding = fed.setting.proxy == WORDS.padding
    answers = tensors(fed.ask(0, 1, fed.begin()))[sent]
    assert padding.any()
    assert (answers[padding] == 0).all()
    assert (answers[~padding] != 0).any(dim=-1).all()
    broadcast, _ = fed.round(1, fed.begin())
    agreed = broadcast.common[returned]
    assert (agreed[padding] == 0).all()
    assert (agreed[~padding] != 0).any(dim=-1).all()
    assert all(parameter.isfinite().all() for parameter in fed.student.parameters())
    fed.ask(1, 2, broadcast)  # digests it
