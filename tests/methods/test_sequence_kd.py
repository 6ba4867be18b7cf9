"""Sentences on the wire: what clients write, what the server makes of it, and what it lets in."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from federations import Federation, equal, snapshot, table, tensors

from fedkd import config, methods, tasks
from fedkd.data.types import Samples
from fedkd.errors import ConfigError, MessageError
from fedkd.exchange.codec import decode, encode
from fedkd.exchange.messages import PostProcessing
from fedkd.federation.prepare import prepare
from fedkd.jobs.simulate import simulate
from fedkd.learning import offline
from fedkd.methods.core import protection
from fedkd.methods.core.base import Setting
from fedkd.methods.sequence_kd import likest
from fedkd.models.text import writing
from fedkd.tasks import Vocabulary

WORDS = Vocabulary(size=12, padding=3, start=0, end=1)
L = 5
GRU = {"name": "gru-seq2seq", "width": 8, "hidden": 8}
LM = {"name": "causal-transformer", "width": 8, "layers": 1, "heads": 2}
OF = {"sequence-to-sequence": GRU, "language-model": LM}


def texts(count: int, task: tasks.Task, seed: int) -> Samples:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randint(4, WORDS.size, (count, *task.inputs), generator=draw)
    y = torch.randint(4, WORDS.size, (count, L - 1), generator=draw)
    return Samples(x, y)


def federation(task: str = "sequence-to-sequence", **method: Any) -> Federation:
    model, own = OF[task], {"name": "sequence-kd", "prompt": 2, **method}
    told = table(own, models=[model], student=model, task={"name": task}, public={"size": 6})
    experiment = config.parse(told)
    inputs = (2 * L - 1,) if model is GRU else (L - 1,)
    names = [str(n) for n in range(WORDS.size)]
    asked = tasks.build(experiment.task, inputs=inputs, names=names, vocabularies={"": WORDS})
    chosen, experiment = methods.resolve(experiment, task=asked)
    setting = Setting(experiment, asked, 3, texts(6, asked, 50).x)
    data = [texts(8, asked, seed) for seed in range(3)]
    student = setting.build(experiment.student.model, purpose="student")
    return Federation(chosen, setting, data, texts(8, asked, 99), student)


@pytest.mark.parametrize("task", OF)
def test_a_client_sends_what_its_teacher_writes_and_nothing_else(task: str) -> None:
    fed = federation(task)
    upload = fed.ask(1, 1, fed.begin())
    assert set(tensors(upload)) == {"written"}
    [value] = upload.values.values()
    assert isinstance(value.provenance, PostProcessing)
    teacher = fed.client_context(1).teacher.eval()
    shown = writing.begun(fed.setting.proxy, fed.setting.task, 2)
    expected = writing.write(teacher, shown, fed.setting.task)
    assert torch.equal(fed.wire(1, upload)["written"].long(), expected)


@pytest.mark.parametrize("task", OF)
@pytest.mark.parametrize("choice", ["all", "likest"])
def test_the_student_learns_these_texts_as_if_they_had_been_in_a_table(
    task: str, choice: str
) -> None:
    how = {"epochs": 2, "batch_size": 4, "learning_rate": 0.05}
    fed = federation(task, choice=choice, student=how)
    uploads = {c: fed.wire(c, fed.ask(c, 1, fed.begin())) for c in range(3)}
    ctx = fed.server_context()
    student = fed.setting.build(fed.setting.experiment.student.model, purpose="student")
    fed.method.server(ctx, uploads)
    asked = fed.setting.task
    shown = writing.begun(fed.setting.proxy, asked, 2)
    sent = [each["written"].long() for each in uploads.values()]
    sent = [likest(sent, WORDS.padding)] if choice == "likest" else sent
    told = [writing.records(each, shown, asked) for each in sent]
    x, y = (torch.cat(parts) for parts in zip(*told, strict=True))
    offline.distil(
        student, x, y, asked.likelihood.mean_nll, fed.method.params.student, ctx.rng("distillation")
    )
    assert equal(snapshot(student), snapshot(fed.student))


def test_numbers_beyond_the_vocabulary_are_not_let_in() -> None:
    fed = federation()
    for wrong in (-1, WORDS.size):
        bad = torch.full((6, L - 1), wrong, dtype=torch.int32)
        with pytest.raises(MessageError, match=r"field 'written' is not within \[0, 11\]"):
            decode(encode({"written": bad}), fed.method.expects(fed.setting, 0))


def test_beginnings_that_are_whole_texts_are_refused() -> None:
    fed = federation("language-model", prompt=L)
    with pytest.raises(ConfigError, match=r"method\.prompt is \d+, and a text of task"):
        fed.method.check(fed.setting)


def test_a_language_model_s_texts_begin_as_they_were_shown_whatever_is_sent() -> None:
    fed, students = federation("language-model"), []
    honest = fed.wire(0, fed.ask(0, 1, fed.begin()))
    other = {"written": honest["written"].clone()}
    other["written"][:, :2] = 7
    for upload in (honest, other):
        fed.student.load_state_dict(federation("language-model").student.state_dict())
        fed.method.server(fed.server_context(), {0: upload})
        students.append(snapshot(fed.student))
    assert equal(*students)


def test_the_likest_text_is_that_which_shares_most_tokens_with_the_others() -> None:
    a = torch.tensor([[5, 6, 7, 1], [9, 9, 1, 3]])
    b = torch.tensor([[5, 6, 1, 3], [4, 5, 1, 3]])
    c = torch.tensor([[8, 9, 10, 11], [4, 1, 3, 3]])
    assert likest([c, b, a], 3).tolist() == [[5, 6, 1, 3], [4, 1, 3, 3]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": {"name": "classification"}}, r"method 'sequence-kd' asks for text, which task"),
        ({"task": {"name": "regression"}}, "asks for text"),
    ],
)
def test_what_does_not_write_is_refused(changes: dict[str, Any], message: str, rows: Path) -> None:
    told = tiny.experiment(rows, {"method": {"name": "sequence-kd"}, **changes})
    with pytest.raises(ConfigError, match=message):
        prepare(told)


def test_of_two_clients_no_text_is_the_likest() -> None:
    fed = federation(choice="likest")
    fed.method.check(fed.setting)
    with pytest.raises(ConfigError, match="of 2 clients in a round none is: ask 3 or more"):
        fed.method.check(replace(fed.setting, clients=2))


def test_client_units_are_refused() -> None:
    fed = federation()
    privacy = config.Privacy(unit="client-logits", epsilon=8.0, delta=1e-3)
    experiment = fed.setting.experiment.model_copy(update={"privacy": privacy})
    with pytest.raises(ConfigError, match="'sequence-kd' cannot run under 'client-logits'"):
        protection.check(fed.method, replace(fed.setting, experiment=experiment))


def test_a_federation_translates_by_a_file(tmp_path: Path) -> None:
    colours, sites = ("red", "green", "blue", "old"), ("a", "b")
    pairs = [(a, b) for a in colours for b in colours]
    rows = [
        {"text": f"{a} {b}", "label": f"{b} {a}", "site": sites[n % 2]}
        for n, (a, b) in enumerate(pairs * 3)
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    (tmp_path / "public.txt").write_text("\n".join(f"{a} {b}" for a, b in pairs))
    how = {"epochs": 2, "batch_size": 8, "optimiser": "adam", "learning_rate": 0.01}
    told = {
        "name": "translated",
        "rounds": 1,
        "task": {"name": "sequence-to-sequence"},
        "data": {
            "name": str(tmp_path / "pairs.json"),
            "client": "site",
            "partition": {"scheme": "natural"},
            "text": {"vocabulary": 300, "length": 8, "texts": str(tmp_path / "public.txt")},
            "public": {"source": str(tmp_path / "public.txt"), "size": 16},
        },
        "clients": {"count": 2, "models": [GRU], "training": how},
        "student": {"model": GRU},
        "method": {"name": "sequence-kd", "student": how},
    }
    summary = simulate(config.parse(told), tmp_path / "run", tiny.Quiet())
    assert summary["student"]["perplexity"] < 300
    assert "written" in {each["field"] for each in summary["released"]}
