"""A teacher that writes in tokens of its own: its texts, or sorted probabilities, are passed on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fedkd import config, data
from fedkd.config import Distillation, Source
from fedkd.data.texts import tokenizer
from fedkd.data.texts.retold import retold
from fedkd.data.types import Dataset
from fedkd.errors import ConfigError
from fedkd.jobs.distil import distil
from fedkd.jobs.predict import predict
from fedkd.knowledge.writing import universal
from fedkd.learning import forms
from fedkd.learning.ways import prepare
from fedkd.tasks import Targets
from fedkd.tasks.likelihoods.tokens import TOKENS

WORDS = ("red", "green", "blue", "old", "äh")
HOW = {"epochs": 3, "batch_size": 16, "optimiser": "adam", "learning_rate": 0.01}
MODELS: dict[str, dict[str, Any]] = {
    "sequence-to-sequence": {"name": "gru-seq2seq", "width": 16, "hidden": 16},
    "language-model": {"name": "causal-transformer", "width": 16, "layers": 1, "heads": 2},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of words, byte pairs that know all of them, and byte pairs that know none."""
    folder = tmp_path_factory.mktemp("unlike")
    rows = [{"text": f"{a} {b}", "label": f"{b} {a} {b}"} for a in WORDS for b in WORDS]
    (folder / "pairs.json").write_text(json.dumps(rows))
    (folder / "public.json").write_text(json.dumps(rows))
    (folder / "bytes.json").write_text(tokenizer.learn(["xyzzy"], 262).content)
    return folder


def text(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "texts": str(folder / "public.json"),
        "tokenizer": {"words": "bpe", "bytes": str(folder / "bytes.json")},
        "vocabulary": 300,
        "length": 24,
        **changes,
    }


def dataset(folder: Path, targets: Targets, **changes: Any) -> Dataset:
    told = {"name": str(folder / "pairs.json"), "label": "label", "text": text(folder, **changes)}
    return data.load(config.validate(Source, told), seed=0, targets=targets)


def asked(folder: Path, way: dict[str, Any], task: str, **changes: Any) -> Distillation:
    base = {
        "name": "unlike",
        "task": {"name": task},
        "data": {"name": str(folder / "pairs.json"), "label": "label", "text": text(folder)},
        "teachers": [{"model": MODELS[task], "training": HOW, "views": ["bytes"]}],
        "student": {"model": MODELS[task], "training": HOW, "views": ["words"]},
        "way": way,
        "plain": False,
    }
    return config.validate(Distillation, base | changes)


@pytest.mark.parametrize("targets", ["tokens", "next-tokens"])
@pytest.mark.parametrize(("writer", "reader"), [("words", "bytes"), ("bytes", "words")])
def test_a_true_text_is_retold_as_the_table_has_it(
    writer: str, reader: str, targets: Targets, folder: Path
) -> None:
    seen = dataset(folder, targets).own
    theirs, ours = seen[writer], seen[reader]
    assert theirs.classes != ours.classes
    padding = theirs.tokenizers[""].vocabulary.padding
    wrote = theirs.train.y.masked_fill(theirs.train.y < 0, padding)
    shown = torch.full_like(theirs.train.x, padding)
    if targets == "next-tokens":
        wrote = torch.cat([theirs.train.x[:, :1], wrote], dim=1)
        shown[:, :3] = theirs.train.x[:, :3]
    told = retold(wrote, shown, theirs, ours)
    assert torch.equal(torch.as_tensor(told.x), torch.as_tensor(ours.train.x))
    if targets == "tokens":
        assert torch.equal(told.y, ours.train.y)
        return
    begun = theirs.tokenizers[""].decode(shown)
    texts = theirs.tokenizers[""].decode(wrote)
    for row, true, before, whole in zip(told.y, ours.train.y, begun, texts, strict=True):
        counted = (row >= 0).nonzero()[:, 0]
        assert torch.equal(row[counted], true[counted])
        assert counted.tolist() == list(range(int(counted[0]), int((true >= 0).sum())))
        # What counts is what comes after the beginning, and a token that it cut.
        [rest] = ours.tokenizers[""].decode(row[counted][None])
        assert whole.endswith(rest)
        assert len(rest) >= len(whole[len(before) :].strip())


def test_a_text_without_its_end_has_none_that_counts(folder: Path) -> None:
    seen = dataset(folder, "tokens").own
    theirs, ours = seen["words"], seen["bytes"]
    marks = theirs.tokenizers[""].vocabulary
    wrote = theirs.train.y.masked_fill(theirs.train.y < 0, marks.padding)
    told = retold(wrote.masked_fill(wrote == marks.end, marks.padding), wrote, theirs, ours)
    end = ours.tokenizers[""].vocabulary.end
    assert not (told.y == end).any()
    assert ((told.y >= 0).sum(dim=1) == (ours.train.y >= 0).sum(dim=1) - 1).all()
    longer = dataset(folder, "tokens", length=8, cut=True).own
    told = retold(wrote, wrote, theirs, longer["bytes"])
    assert told.y.shape[1] == 7
    cut = (ours.train.y >= 0).sum(dim=1) > 7
    assert cut.any()
    assert not (told.y[cut] == end).any()


@pytest.mark.parametrize("task", MODELS)
def test_a_student_learns_its_teacher_s_sentences_in_its_own_tokens(
    task: str, folder: Path, tmp_path: Path
) -> None:
    told = asked(folder, {"name": "sequence-level", "prompt": 3, "labels": 0.5}, task)
    summary = distil(told, tmp_path / "run")
    assert summary["student"]["perplexity"] < 150  # of 300 tokens
    assert summary["teachers"][0]["perplexity"] < 150  # of 262 others
    assert summary["own_tokens"]
    assert "vs best teacher" not in (tmp_path / "run" / "report.html").read_text()
    [said] = predict(tmp_path / "run", ["red"])  # the student's tokeniser is kept
    assert isinstance(said.answer, str)


def test_places_of_which_an_unlike_teacher_says_nothing_do_not_count() -> None:
    draws = torch.Generator().manual_seed(0)
    ours, theirs = (torch.randn(2, 4, classes, generator=draws) for classes in (5, 7))
    y = torch.tensor([[1, 2, 3, 4], [1, 2, -100, -100]])
    theirs[0, 2:] = 0
    form = forms.find("uld")
    compared = form.compared(form.Params(), (), (), draws, TOKENS).loss
    assert compared is not None
    places = universal(ours, theirs)
    expected = torch.stack([places[0, :2].mean(), places[1, :2].mean()])
    torch.testing.assert_close(compared([ours], [theirs], y), expected)


def test_sorted_probabilities_go_between_unlike_tokens(folder: Path, tmp_path: Path) -> None:
    uld = {"knowledge": [{"name": "uld"}]}
    told = asked(folder, {"name": "offline"}, "sequence-to-sequence", **uld)
    assert distil(told, tmp_path / "run")["student"]["perplexity"] < 200


def test_what_does_not_go_with_unlike_tokens_is_refused(folder: Path) -> None:
    task, kd = "sequence-to-sequence", {"knowledge": [{"name": "kd"}]}
    with pytest.raises(
        ConfigError, match=r"\(kd\) compares token by token.*choose uld, or the way"
    ):
        prepare.prepare(asked(folder, {"name": "offline"}, task, **kd))
    with pytest.raises(ConfigError, match=r"way 'on-policy' compares token by token.*choose among"):
        prepare.prepare(asked(folder, {"name": "on-policy"}, task, **kd))
    everything = {"model": MODELS[task], "training": HOW}
    with pytest.raises(ConfigError, match=r"student\.views is \[\], and what is written"):
        prepare.prepare(asked(folder, {"name": "sequence-level"}, task, student=everything))
    with pytest.raises(ConfigError, match=r"and the task's targets \(tags\) depend on which"):
        dataset(folder, "tags")
    told = {"name": str(folder / "pairs.json"), "label": "label", "text": text(folder)}
    source = config.validate(config.Data, told)
    with pytest.raises(
        ConfigError, match=r"names 2 tokenisers, and what is written in a federation"
    ):
        data.shared(source, seed=0, targets="tokens")
