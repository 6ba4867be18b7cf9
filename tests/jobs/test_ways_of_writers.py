"""Ways to learn from a teacher that writes: by a file, from texts to a student."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fedkd import config
from fedkd.config import Distillation
from fedkd.errors import ConfigError
from fedkd.jobs.distil import distil
from fedkd.learning import evaluate
from fedkd.learning.ways import prepare, writing

WORDS = ("red", "green", "blue", "old", "new")
HOW = {"epochs": 4, "batch_size": 16, "optimiser": "adam", "learning_rate": 0.01}
MODELS = {
    "sequence-to-sequence": {"name": "gru-seq2seq", "width": 16, "hidden": 16},
    "language-model": {"name": "causal-transformer", "width": 16, "layers": 1, "heads": 2},
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two words, and the same the other way round."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = [
        {"text": f"{a} {b}", "label": f"{b} {a}"} for a in WORDS for b in WORDS for _ in range(2)
    ]
    (folder / "pairs.json").write_text(json.dumps(rows))
    (folder / "public.txt").write_text("\n".join(f"{a} {b}" for a in WORDS for b in WORDS))
    return folder


def asked(
    table: Path, way: dict[str, Any], task: str = "sequence-to-sequence", **changes: Any
) -> Distillation:
    text = {"texts": str(table / "public.txt"), "vocabulary": 300, "length": 8}
    model = MODELS[task]
    base = {
        "name": "writers",
        "task": {"name": task},
        "data": {"name": str(table / "pairs.json"), "label": "label", "text": text},
        "teachers": [{"model": model, "training": HOW}],
        "student": {"model": model, "training": HOW},
        "way": way,
        "plain": False,
    }
    return config.validate(Distillation, base | changes)


JSD = {"knowledge": [{"name": "jsd", "temperature": 1.0, "beta": 0.5}]}


@pytest.mark.parametrize("task", MODELS)
@pytest.mark.parametrize("name", ["sequence-level", "on-policy"])
def test_a_student_learns_what_its_teacher_writes(
    name: str, task: str, table: Path, tmp_path: Path
) -> None:
    way: dict[str, Any] = {"name": name, "prompt": 2, "labels": 0.5}
    forms = JSD if name == "on-policy" else {}
    told = asked(table, way, task, **forms)
    summary = distil(told, tmp_path / "a")
    assert summary["student"]["perplexity"] < 200  # of 300 tokens
    if name == "on-policy":  # what it draws is of the seed
        distil(told, tmp_path / "b")
        a, b = ((tmp_path / each / "student.safetensors").read_bytes() for each in "ab")
        assert a == b


def test_what_is_learned_is_what_the_teacher_wrote_and_not_the_truth(table: Path) -> None:
    ready = prepare.prepare(asked(table, {"name": "sequence-level"}))
    text = ready.distillation.data.text
    assert text is not None
    assert text.sha256 == {"": ready.data.tokenizers[""].digest}  # a resume would see another one
    [teacher], x = ready.teachers, ready.data.train.x
    told = writing.written_by(teacher.train(), x, ready.task, 8)
    assert teacher.training
    assert torch.equal(told.x[:, :8], x[:, :8])
    answers = evaluate.answers(teacher, told.x)
    decided = ready.task.likelihood.decide(answers)
    assert torch.equal(decided[told.y >= 0], told.y[told.y >= 0])  # the likeliest at each place
    assert not torch.equal(told.y, ready.data.train.y)


def test_a_task_of_classes_is_refused(table: Path) -> None:
    told = asked(table, {"name": "sequence-level"}).model_copy(
        update={"task": config.TaskChoice(name="classification")}
    )
    bag = told.student.model_copy(update={"model": config.ModelSpec(name="bag")})
    with pytest.raises(ConfigError, match=r"way\.name is for models that write, and task 'classif"):
        prepare.prepare(told.model_copy(update={"student": bag}))


@pytest.mark.parametrize("name", ["sequence-level", "on-policy"])
def test_beginnings_that_are_whole_texts_are_refused(name: str, table: Path) -> None:
    forms = JSD if name == "on-policy" else {}
    with pytest.raises(
        ConfigError, match=r"way\.prompt is 99, and a text of task 'language-model'"
    ):
        prepare.prepare(asked(table, {"name": name, "prompt": 99}, "language-model", **forms))


def test_on_policy_needs_to_know_how_tokens_are_graded(table: Path) -> None:
    with pytest.raises(ConfigError, match=r"way 'on-policy' needs to know what is passed on"):
        prepare.prepare(asked(table, {"name": "on-policy"}))
