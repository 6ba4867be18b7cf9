"""A run's student of texts: asked by `fedkd predict`, and written as ONNX with its tokeniser."""

import csv
import json

import numpy as np
import pytest
import tiny
import torch
from click.testing import CliRunner

from fedkd import config
from fedkd.cli import app
from fedkd.cli.command import command_of
from fedkd.data.texts.tokenizer import padded, parse
from fedkd.errors import RunFolderError, UsageError
from fedkd.jobs.export import export
from fedkd.jobs.predict import predict
from fedkd.jobs.simulate import simulate

GOOD, BAD = "good fine great", "bad poor awful"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A student that knows good words from bad ones."""
    place = tmp_path_factory.mktemp("predict")
    draws = np.random.default_rng(0)
    rows = [
        (" ".join(draws.choice(words.split(), size=int(draws.integers(1, 5)))) + f" {n}", label)
        for n in range(60)
        for label, words in (("yes", GOOD), ("no", BAD))
    ]
    with (place / "texts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    (place / "public.txt").write_text(f"{GOOD}\n{BAD}")
    text = {"texts": str(place / "public.txt"), "vocabulary": 300, "length": 16, "cut": True}
    experiment = config.parse(
        {
            "name": "texts",
            "rounds": 2,
            "data": {"name": str(place / "texts.csv"), "text": text},
            "clients": {
                "count": 2,
                "models": [{"name": "bag", "width": 16}],
                "training": {"epochs": 8, "optimiser": "adam", "learning_rate": 0.05},
            },
            "student": {"model": {"name": "bag", "width": 16}},
            "method": {"name": "fedavg"},
        }
    )
    simulate(experiment, place / "run", tiny.Quiet())
    return place / "run"


def test_a_student_says_what_it_learned(run):
    yes, no = predict(run, ["great good 7", "awful bad 7"])
    assert (yes.answer, no.answer) == ("yes", "no")
    assert sum(yes.scores.values()) == pytest.approx(1)


def test_the_command_prints_texts_as_they_are(run):
    done = CliRunner().invoke(
        command_of(app), ["predict", str(run), "--text", "good [x]", "--json"]
    )
    assert json.loads(done.output)[0]["answer"] == "yes"
    done = CliRunner().invoke(command_of(app), ["predict", str(run), "--text", "good [x]"])
    assert "good [x]" in done.output


def test_an_emoji_by_name_and_a_long_answer_are_printed_as_they_are(run):
    text = "good :cat: " + "x" * 90
    done = CliRunner().invoke(command_of(app), ["predict", str(run), "--cut", "--text", text])
    assert text in done.output


def test_a_pair_is_refused_where_texts_were_learned_from(run):
    with pytest.raises(UsageError, match="learned from 'text': leave out --second"):
        predict(run, [("good", "bad")])


def test_a_long_text_is_cut_only_where_that_is_asked_for(run):
    with pytest.raises(UsageError, match="has more tokens than the 16 that the student takes"):
        predict(run, ["good " * 30])
    assert predict(run, ["good " * 30], cut=True)[0].answer == "yes"


def test_a_file_for_other_programs_takes_texts_of_any_length(run, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    done = export(run, "onnx", tmp_path / "student.onnx")
    assert done.difference < 1e-4
    words = parse((tmp_path / "tokenizer.json").read_text(), where="the test")
    session = onnxruntime.InferenceSession(str(done.path), providers=["CPUExecutionProvider"])
    texts = ["great good 7", "awful bad 7", "poor"]
    expected = [each.scores for each in predict(run, texts)]
    for text, scores in zip(texts, expected, strict=True):
        [encoding] = words.encode([text], length=16)
        ids = padded([encoding.ids], len(encoding.ids), words.vocabulary.padding)
        logits = torch.from_numpy(session.run(["logits"], {"inputs": ids.numpy()})[0])
        found = logits.softmax(dim=-1)[0].tolist()
        assert found == pytest.approx([scores["no"], scores["yes"]], abs=1e-5)


def test_torchscript_would_keep_one_length(run):
    with pytest.raises(UsageError, match="keep the length of one batch of texts for all"):
        export(run, "torchscript")


def test_a_run_without_its_tokeniser_says_so(run):
    file = run / "tokenizer.json"
    content = file.read_text()
    file.unlink()
    with pytest.raises(RunFolderError, match=r"its tokenizer\.json cannot be read"):
        predict(run, ["good"])
    file.write_text(content.replace("good", "bad"))
    with pytest.raises(RunFolderError, match=r"tokenizer\.json has SHA-256 .*put the run's own"):
        predict(run, ["good"])
    file.write_text(content)
