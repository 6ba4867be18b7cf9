"""`fedkd predict` of students that write, and of one that looks for an answer."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from fedkd import config
from fedkd.cli import app
from fedkd.cli.command import command_of
from fedkd.config import Distillation
from fedkd.errors import UsageError
from fedkd.jobs.distil import distil
from fedkd.jobs.predict import predict
from fedkd.models import call
from fedkd.runs import student

WORDS = ("red", "green", "blue", "old")
HOW = {"epochs": 20, "batch_size": 16, "optimiser": "adam", "learning_rate": 0.02}
MODELS: dict[str, dict[str, Any]] = {
    "sequence-to-sequence": {"name": "gru-seq2seq", "width": 24, "hidden": 24},
    "language-model": {"name": "causal-transformer", "width": 16, "layers": 1, "heads": 2},
    "retrieval": {"name": "bag", "width": 16},
}


def ran(task: str, folder: Path) -> Path:
    """A student of pairs of words: the second text is the first the other way round."""
    rows = [{"text": f"{a} {b}", "label": f"{b} {a}"} for a in WORDS for b in WORDS] * 2
    (folder / "pairs.json").write_text(json.dumps(rows))
    (folder / "public.json").write_text(json.dumps(rows))
    text: dict[str, Any] = {
        "texts": str(folder / "public.json"),
        "vocabulary": 300,
        "length": 8,
        "column": ["text", "label"] if task == "retrieval" else "text",
    }
    told = {
        "name": "writers",
        "task": {"name": task},
        "data": {"name": str(folder / "pairs.json"), "label": "label", "text": text},
        "teachers": [{"model": MODELS[task], "training": HOW}],
        "student": {"model": MODELS[task], "training": HOW},
        "way": {"name": "offline"},
        "knowledge": [{"name": "divergence"}],
        "plain": False,
    }
    distil(config.validate(Distillation, told), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ran("sequence-to-sequence", tmp_path_factory.mktemp("translator"))


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ran("language-model", tmp_path_factory.mktemp("writer"))


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ran("retrieval", tmp_path_factory.mktemp("finder"))


def likeliest(run: Path, source: list[int] | None, ids: list[int], most: int) -> list[int]:
    """An oracle: the model asked anew for each token of one text."""
    asked = student.load(run)
    marks, length = asked.task.vocabulary, asked.task.answer[0]
    assert marks is not None
    ids = list(ids)
    for _ in range(most):
        row = ids + [marks.padding] * (length - len(ids))
        before = [] if source is None else source + [marks.padding] * (length + 1 - len(source))
        logits = call.answer(asked.model, torch.tensor([before + row]))[0, len(ids) - 1]
        logits[[marks.padding, marks.start]] = -torch.inf
        if int(logits.argmax()) == marks.end:
            break
        ids.append(int(logits.argmax()))
    return ids


def test_a_translator_writes_what_is_likeliest_token_by_token(translator: Path) -> None:
    words = student.load(translator).tokenizer
    assert words is not None
    texts = ["red green", "blue blue", "old"]
    for text, said in zip(texts, predict(translator, texts), strict=True):
        [source] = words.encode([text], length=8)
        wanted = likeliest(translator, source.ids, [words.vocabulary.start], 7)
        assert said.answer == words.decode(torch.tensor([wanted]))[0]
        assert said.answer
    [one] = predict(translator, texts[:1], most=1)
    assert one.answer == predict(translator, texts[:1])[0].answer.split()[0]


def test_a_language_model_goes_on(writer: Path) -> None:
    words = student.load(writer).tokenizer
    assert words is not None
    for text in ("red", "gr", ""):
        for most in (1, 3):
            [said] = predict(writer, [text], most=most)
            [source] = words.encode([text], length=8)
            wanted = likeliest(writer, None, source.ids[:-1], most)
            assert said.answer == words.decode(torch.tensor([wanted]))[0]
            assert said.answer.startswith(text)
    with pytest.raises(UsageError, match="has more tokens than the 7 that the student takes"):
        predict(writer, ["red " * 9])


def test_a_retrieval_ranks_the_lines_of_a_file(finder: Path, tmp_path: Path) -> None:
    file = tmp_path / "answers.txt"
    lines = [f"{a} {b}" for a in WORDS for b in WORDS]
    file.write_text("\n".join([*lines, "", lines[0]]))
    texts = ["red green", "old old"]
    found = predict(finder, texts, among=file)
    asked = student.load(finder)
    words = asked.tokenizer
    assert words is not None
    for text, said in zip(texts, found, strict=True):
        assert set(said.scores) == set(lines)
        assert sorted(said.scores.values(), reverse=True) == list(said.scores.values())
        assert said.answer == next(iter(said.scores))
        for line in lines[:3]:  # as a record of both
            ids = [each.ids for each in words.encode([text, line], length=8)]
            pair = torch.tensor(
                [[row + [words.vocabulary.padding] * (8 - len(row)) for row in ids]]
            )
            one, other = call.answer(asked.model, pair)[0]
            cosine = float(torch.cosine_similarity(one, other, dim=0))
            assert said.scores[line] == pytest.approx(cosine, abs=1e-5)
    told = ["predict", str(finder), "--text", "red green", "--among", str(file)]
    done = CliRunner().invoke(command_of(app), told)
    assert done.output.count("\n    ") == 5  # the best of them, one a line


def test_what_a_student_was_not_taught_is_refused(
    translator: Path, finder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"a text a line, --among FILE"):
        predict(finder, ["red"])
    with pytest.raises(UsageError, match=r"--most 3 is for a student that writes"):
        predict(finder, ["red"], among=tmp_path / "a.txt", most=3)
    with pytest.raises(UsageError, match=r"is for a student of retrieval"):
        predict(translator, ["red"], among=tmp_path / "a.txt")
    with pytest.raises(UsageError, match=r"from 'text' and 'label': leave out --second"):
        predict(finder, [("red", "old")], among=tmp_path / "a.txt")
