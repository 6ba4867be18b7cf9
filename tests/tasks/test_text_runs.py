"""Federations of texts, from a table to a student: every task, and every method that fits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import drawn
import pytest
import shrunk
import torch

from fedkd import config, data, methods
from fedkd.errors import ConfigError, DataError
from fedkd.federation.prepare import prepare
from fedkd.jobs.simulate import simulate
from fedkd.learning import evaluate
from fedkd.models.text.writing import write

CONFIGS = drawn.ROOT / "fedkd" / "configs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tables")
    for name in drawn.TEXTS:
        drawn.texts(name)(place / f"{name}.csv")
    return place


def table(folder: Path, name: str, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A config of fedkd/configs/, whose files are in a folder, with changes by dotted key."""
    found = config.read(CONFIGS / f"{name}.toml")
    where = found["data"]
    where["name"] = str(folder / where["name"])
    if "public" in where:
        where["public"]["source"] = str(folder / where["public"]["source"])
    if "texts" in where["text"]:
        where["text"]["texts"] = str(folder / where["text"]["texts"])
    for key, value in (changes or {}).items():
        *sections, last = key.split(".")
        place = found
        for section in sections:
            place = place[section]
        if value is None:
            place.pop(last)
        else:
            place[last] = value
    return found


@pytest.mark.parametrize("method", ["fedmd", "dsfl", "feddf", "fedkd", "fedavg", "fedprox"])
@pytest.mark.parametrize("name", ["text_classification", "tagging"])
def test_a_method_that_fits_makes_a_student_of_texts(
    folder: Path, tmp_path: Path, method: str, name: str
) -> None:
    own = table(folder, name, {"method": {"name": method}})
    summary = simulate(shrunk.experiment(own), tmp_path / "run")
    assert summary["failures"] == 0
    assert all(summary["student"][figure] is not None for figure in _numbers(name))


def _numbers(name: str) -> tuple[str, ...]:
    return (
        ("accuracy", "macro_f1", "auroc")
        if name == "text_classification"
        else ("entity_f1", "micro_f1")
    )


def test_scores_of_what_a_model_writes_are_sacrebleu_s(folder: Path) -> None:
    metrics = pytest.importorskip("sacrebleu.metrics")
    prepared = prepare(shrunk.experiment(table(folder, "translation")))
    task, test = prepared.setting.task, prepared.data.test
    model = prepared.setting.build(prepared.experiment.student.model, purpose="student").eval()
    found = evaluate.score(model, test, task.scores)
    [words] = prepared.data.tokenizers.values()
    wanted = words.decode(test.y.masked_fill(test.y == -100, words.vocabulary.padding))
    assert {text[:16] for text in wanted} == {"ouvrir le fichie"}
    texts = words.decode(write(model, test.x, task))
    for name, metric in (("chrf", metrics.CHRF()), ("bleu", metrics.BLEU(force=True))):
        assert found[name] == pytest.approx(metric.corpus_score(texts, [wanted]).score / 100)
    chrf, bleu, _ = task.scores
    for score in (chrf, bleu):
        given = write(model, test.x, task)
        parts = [score.tally(given[rows], test.y[rows]) for rows in (slice(5), slice(5, None))]
        assert torch.equal(sum(parts), score.tally(given, test.y))
        whole, most = score.tally(given, test.y), score.totals(test.y)
        assert most.isfinite().all()
        drawn = torch.randint(task.classes, given.shape, generator=torch.Generator().manual_seed(1))
        for tally in (whole, score.tally(drawn, test.y)):
            assert (tally <= most).all()
        claimed = whole.clone()  # by who says that less was wanted
        claimed[1 :: 3 if score is chrf else len(whole)] = 1
        assert score.read(claimed, most) == score.read(whole, most)
        assert score.read(score.tally(test.y, test.y), score.totals(test.y))[score.name] == 1
    answers = evaluate.answers(model, test.x)  # which do not say what would be written
    assert evaluate.score(answers, test, task.scores)["bleu"] is None


@pytest.mark.parametrize("method", ["fedmd", "dsfl", "feddf"])
def test_answers_to_what_nobody_wrote_are_not_compared(folder: Path, method: str) -> None:
    bare = folder / "english.txt"
    bare.write_text("\n".join(f"open file {n}" for n in range(40)), encoding="utf-8")
    public = {"source": str(bare), "size": 20}
    with pytest.raises(ConfigError, match=r"no column of what is written.*choose one of local, "):
        prepare(_translated(folder, method, public))
    pairs = {"source": str(folder / "translation_public.csv"), "size": 20}
    shown = prepare(_translated(folder, method, pairs)).data.public
    assert shown is not None
    assert bool((shown[torch.arange(20)][:, -46:] > 4).any(dim=1).all())  # beyond the start


def _translated(folder: Path, method: str, public: dict[str, Any]) -> config.Experiment:
    own = table(folder, "translation", {"method": {"name": method}})
    own["data"]["public"] = public
    return shrunk.experiment(own)


@pytest.mark.parametrize("method", ["dense", "dafl", "adi", "co_boosting", "fedftg", "fedpair"])
def test_methods_of_images_refuse_texts(folder: Path, method: str) -> None:
    task = prepare(shrunk.experiment(table(folder, "text_classification"))).setting.task
    kind = methods.find(method)
    with pytest.raises(
        ConfigError, match=r"asks for image.* choose one of local, .*fedmd"
    ) as error:
        methods.check_task(kind(kind.Params()), method, task)
    assert "\n" not in str(error.value)


FAULTS = [
    ("tagging", "tags.csv", "words,tags\na b,O\n", r"line 2, column 'tags': 1 tags of 2 words"),
    (
        "spans",
        "spans.csv",
        "question,context,answer\nwhat?,it is red,blue\n",
        r"line 2, column 'answer': 'blue' does not stand in the text",
    ),
]


@pytest.mark.parametrize(("name", "file", "content", "message"), FAULTS)
def test_targets_that_do_not_fit_their_texts_are_refused(
    folder: Path, tmp_path: Path, name: str, file: str, content: str, message: str
) -> None:
    (tmp_path / file).write_text(content, encoding="utf-8")
    own = shrunk.experiment(table(folder, name))
    where = own.data.model_copy(update={"name": str(tmp_path / file), "client": None})
    with pytest.raises(DataError, match=message):
        data.load(where, seed=0, targets="tags" if name == "tagging" else "spans")


def test_a_table_may_be_parquet_or_have_tabs_and_texts_two_columns(
    folder: Path, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    rows = drawn.text_rows("answers")
    pairs = [{**row, "fits": n % 2} for n, row in enumerate(rows)]
    parquet.write_table(pyarrow.Table.from_pylist(pairs), tmp_path / "pairs.parquet")
    lines = ["question\tanswer\tfits", *("\t".join(map(str, row.values())) for row in pairs)]
    (tmp_path / "pairs.tsv").write_text("\n".join(lines), encoding="utf-8")
    own = shrunk.experiment(table(folder, "retrieval")).data
    found = [
        data.load(
            own.model_copy(update={"name": str(tmp_path / f"pairs.{ending}"), "label": "fits"}),
            seed=0,
        )
        for ending in ("parquet", "tsv")
    ]
    assert torch.equal(found[0].train.x, found[1].train.x)
    assert torch.equal(found[0].train.y, found[1].train.y)
    [words] = found[0].tokenizers.values()
    ends = (found[0].train.x == words.vocabulary.end).sum(dim=1)
    assert (ends == 2).all()  # of the question, and of the answer


def test_an_answer_has_no_name_that_says_what_it_is(folder: Path) -> None:
    own = shrunk.experiment(table(folder, "retrieval")).data
    found = data.load(own, seed=0, targets="identities")
    assert all(name.isdigit() for name in found.class_names)


def test_a_tokeniser_is_learned_from_both_sides_of_public_pairs(folder: Path) -> None:
    own = shrunk.experiment(table(folder, "translation")).data
    [words] = data.load(own, seed=0, targets="tokens").tokenizers.values()
    assert any("ouvrir" in name for name in words.names)
    [english] = data.load(own, seed=0, targets="next-tokens").tokenizers.values()
    assert not any("ouvrir" in name for name in english.names)
