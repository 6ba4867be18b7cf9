"""Tables of texts: the same records whatever the file, and each fault in one line."""

import csv
import json

import pytest
import torch

from fedkd import config, data, tasks
from fedkd.data.readers.tables import files
from fedkd.data.texts import tokenizer
from fedkd.errors import ConfigError, DataError

TEXTS = ["good food", "bad food", "good service and good food", "a bad day", "fine", "not fine"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("texts")
    rows = [{"text": text, "label": n % 2, "site": "ab"[n // 3]} for n, text in enumerate(TEXTS)]
    rows = [{**row, "text": f"{row['text']} {n}"} for n in range(5) for row in rows]
    with (place / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (place / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (place / "a.json").write_text(json.dumps(rows))
    (place / "public.txt").write_text("\n".join(TEXTS))
    return place


def source(folder, name="a.csv", **changes):
    text = {"texts": str(folder / "public.txt"), "vocabulary": 300, "length": 12}
    named = {"name": str(folder / name), "text": text | changes}
    return config.Data(**named, client="site", partition={"scheme": "natural"})


def test_a_table_is_the_same_whatever_its_file(folder):
    csv_file, lines, whole = (
        data.load(source(folder, name), seed=0) for name in ("a.csv", "a.jsonl", "a.json")
    )
    for other in (lines, whole):
        assert torch.equal(other.train.x, csv_file.train.x)
        assert torch.equal(other.train.y, csv_file.train.y)
        assert torch.equal(other.groups, csv_file.groups)


def test_records_are_padded_numbers_that_decode_to_their_texts(folder):
    found = data.load(source(folder), seed=0)
    words = found.tokenizers[""]
    assert found.shape == (12,)
    assert found.train.x.dtype == torch.int64
    assert set(words.decode(found.train.x)) <= {f"{text} {n}" for text in TEXTS for n in range(5)}
    assert (found.train.x[:, 0] == words.vocabulary.start).all()


def test_a_learned_tokeniser_depends_on_the_public_texts_alone(folder):
    first, again = (data.load(source(folder), seed=seed).tokenizers[""] for seed in (0, 1))
    assert first.digest == again.digest
    other = tokenizer.learn([*TEXTS, "other words here, other words there"], 400)
    assert other.digest != first.digest


def test_a_mark_that_somebody_writes_is_text():
    words = tokenizer.learn(TEXTS, 300)
    [found] = words.encode(["good [SEP] [PAD] food"], length=40)
    assert found.ids.count(words.vocabulary.end) == 1
    assert words.vocabulary.padding not in found.ids
    assert words.decode(torch.tensor([found.ids])) == ["good [SEP] [PAD] food"]


def test_several_tokenisers_make_views(folder):
    file = folder / "tokenizer.json"
    file.write_text(tokenizer.learn(["xyz xyz"], 300).content)
    both = {"words": "bpe", "other": str(file)}
    found = data.load(source(folder, length=40, tokenizer=both), seed=0)
    assert list(found.train.x.columns) == ["words", "other"]
    assert set(found.vocabularies) == {"words", "other"}


def test_what_a_party_reads_by_itself_is_what_the_simulation_deals(folder):
    from fedkd.data import shared_file

    whole = data.shared(source(folder), seed=0)
    kept = shared_file.parse_shared(shared_file.to_bytes(whole))
    assert kept.tokenizers == whole.tokenizers
    own = shared_file.read_own(folder / "a.jsonl", "text", label="label", shared=kept)
    assert torch.equal(own.x.sort(dim=0).values, _all(folder).sort(dim=0).values)


def _all(folder):
    found = data.load(source(folder), seed=0)
    return torch.cat([found.train.x, found.test.x])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 4}, r"line 2: a text has \d tokens, and data.text.length is 4: raise it"),
        ({"texts": None}, "data.text.texts is missing: byte pairs are learned from public texts"),
        ({"column": "words"}, "no column 'words'"),
        ({"tokenizer": "nowhere.json", "texts": None}, "nowhere.json: .*expected a tokenizer.json"),
        ({"texts": "a.csv"}, "'.*a.csv', which data.name is too: these are the clients' texts"),
        ({"sha256": {"": "0" * 64}}, "has SHA-256 .* and 0000000000000000... was agreed on"),
    ],
)
def test_what_does_not_fit_is_refused(folder, changes, message):
    if changes.get("texts"):
        changes = changes | {"texts": str(folder / changes["texts"])}
    with pytest.raises((DataError, ConfigError), match=message):
        data.load(source(folder, **changes), seed=0)


def test_a_long_text_is_cut_where_that_is_asked_for(folder):
    found = data.load(source(folder, length=4, cut=True), seed=0)
    words = found.tokenizers[""].vocabulary
    assert (found.train.x[:, -1] == words.end).any()


def test_numbers_beyond_the_vocabulary_are_refused(folder, tmp_path):
    import numpy as np

    from fedkd.data import shared_file

    whole = data.shared(source(folder), seed=0)
    x = np.full((2, 12), 7)
    x[1, 3] = 300
    np.savez(tmp_path / "own.npz", x_train=x, y_train=[0, 1])
    with pytest.raises(DataError, match="x_train has 300 in sample 1; expected token numbers 0 to"):
        shared_file.read_own(tmp_path / "own.npz", "npz", label="label", shared=whole)


def test_a_text_may_hold_what_unicode_calls_the_end_of_a_line(folder, tmp_path):
    rows = [{"text": f"good\u2028food {n}", "label": n % 2, "site": "a"} for n in range(20)]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    own = source(folder, length=20).model_copy(update={"name": str(tmp_path / "a.jsonl")})
    found = data.load(own, seed=0)
    assert len(found.train) + len(found.test) == 20


def test_half_a_character_names_its_line(folder, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "good \\ud800", "label": 0, "site": "a"}')
    own = source(folder).model_copy(update={"name": str(tmp_path / "a.jsonl")})
    with pytest.raises(DataError, match=r"line 1, column 'text': .*has half a character"):
        data.load(own, seed=0)


def test_a_place_that_is_no_number_names_its_line(folder, tmp_path):
    content = "question,context,answer,at\nwhat?,it is red,red,soon\n"
    (tmp_path / "spans.csv").write_text(content)
    changed = {"name": str(tmp_path / "spans.csv"), "label": ("answer", "at"), "client": None}
    file = folder / "tokenizer.json"
    file.write_text(tokenizer.learn(["it is red"], 300).content)
    pair = {"column": ("question", "context"), "tokenizer": str(file), "texts": None}
    own = source(folder, **pair).model_copy(update=changed)
    with pytest.raises(DataError, match="line 2, column 'at': 'soon' is no place; expected"):
        data.load(own, seed=0, targets="spans")


@pytest.mark.parametrize("targets", ["next-tokens", "tags"])
def test_a_second_column_that_nobody_would_read_is_refused(folder, targets):
    file = folder / "tokenizer.json"
    file.write_text(tokenizer.learn(["good"], 300).content)
    own = source(folder, column=("text", "site"), tokenizer=str(file), texts=None)
    with pytest.raises(ConfigError, match="the task asks for one text: name one"):
        data.load(own, seed=0, targets=targets)


@pytest.mark.parametrize(
    ("template", "targets", "message"),
    [
        ("$A </s>", "tokens", "puts no start before a text or no end after it"),
        ("<s> $A", "tokens", "puts no start before a text or no end after it"),
        ("<pad> $A </s>", "next-tokens", "begins texts with token 0, its padding"),
        ("$A", "next-tokens", None),  # GPT-2's: texts go on without marks
    ],
)
def test_a_tokeniser_whose_marks_teach_no_writing_is_refused(folder, template, targets, message):
    library = pytest.importorskip("tokenizers")
    marks = {"<pad>": 0, "</s>": 1, "<s>": 2, "<unk>": 3}
    words = sorted({word for text in TEXTS for word in text.split()} | set("01234"))
    known = marks | {word: 4 + n for n, word in enumerate(words)}
    made = library.Tokenizer(library.models.WordLevel(known, unk_token="<unk>"))
    made.pre_tokenizer = library.pre_tokenizers.Whitespace()
    made.post_processor = library.processors.TemplateProcessing(
        single=template, special_tokens=list(marks.items())
    )
    made.save(str(folder / "marked.json"))
    asked = source(folder, tokenizer=str(folder / "marked.json"), texts=None)
    asked = asked.model_copy(update={"label": "text"})
    if message is None:
        assert data.load(asked, seed=0, targets=targets).targets == targets
        return
    with pytest.raises(DataError, match=message):
        data.load(asked, seed=0, targets=targets)


def test_what_is_written_is_counted_in_all_and_not_by_token(folder):
    found = data.federate(source(folder), clients=None, seed=0, task=tasks.find("language-model"))
    expected = [[int((client.y >= 0).sum())] for client in found.clients]
    assert found.counts().tolist() == expected
    assert found.counted_names == ("tokens",)
    assert len(found.class_names) > 200


def test_a_cell_may_be_longer_than_a_csv_reader_takes_by_default(tmp_path):
    texts = ["short", "long " * 40_000 + "text"]
    with (tmp_path / "long.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "label"], *([text, "0"] for text in texts)])
    before = csv.field_size_limit()
    assert files.read(tmp_path / "long.csv", ["text"]).column("text") == texts
    assert csv.field_size_limit() == before  # it is the process's
