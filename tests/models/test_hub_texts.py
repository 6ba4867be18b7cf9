"""Hugging Face folders under tasks of texts: what the library says, what trains, what is sent."""

import importlib.util
from dataclasses import replace

import pytest
import torch

from fedkd import models, optional, tasks
from fedkd.config import ModelSpec, TaskChoice
from fedkd.data.texts.tokenizer import learn, padded
from fedkd.errors import ConfigError
from fedkd.models import call, weights
from fedkd.models.text.base import NOWHERE
from fedkd.tasks import Vocabulary

WORDS = Vocabulary(size=30, padding=1, start=0, end=2)
LENGTH = 9
SIZE = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 30}
SIZE |= {"intermediate_size": 16, "max_position_embeddings": 12, "pad_token_id": 1}


def asked(targets, words=WORDS, *, width=3):
    names = tuple("abc")
    task = tasks.build(TaskChoice(), inputs=(LENGTH,), names=names, vocabularies={"": words})
    shapes = {"tags": (LENGTH, 3), "spans": (2, LENGTH), "next-tokens": (LENGTH, words.size)}
    shapes["tokens"] = (LENGTH - 1, words.size)
    inputs = (2 * LENGTH - 1,) if targets == "tokens" else (LENGTH,)
    return replace(task, targets=targets, inputs=inputs, answer=shapes.get(targets, (width,)))


def needs(library):
    missing = importlib.util.find_spec(library) is None
    return pytest.mark.skipif(missing, reason=f"{library} is not installed")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Tiny models as save_pretrained writes them, each of another task."""
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    library = optional.load("transformers", extra="text")
    library.utils.logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("hf")
    torch.manual_seed(1)
    bert, gpt = (
        library.BertConfig(**SIZE, num_labels=3),
        library.GPT2Config(
            vocab_size=30,
            n_positions=12,
            n_embd=8,
            n_layer=1,
            n_head=2,
            bos_token_id=0,
            eos_token_id=2,
        ),
    )
    t5 = library.T5Config(vocab_size=32, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2,
                          decoder_start_token_id=0, pad_token_id=1)  # fmt: skip
    library.BertForTokenClassification(bert).save_pretrained(folder / "tags")
    library.BertForQuestionAnswering(library.BertConfig(**SIZE)).save_pretrained(folder / "spans")
    library.BertModel(bert).save_pretrained(folder / "bert")
    library.GPT2LMHeadModel(gpt).save_pretrained(folder / "gpt")
    library.T5ForConditionalGeneration(t5).save_pretrained(folder / "t5")
    (folder / "bare").mkdir()
    (folder / "bare" / "config.json").write_text((folder / "bert" / "config.json").read_text())
    return folder


def build(folder, task, seed=0, **options):
    spec = ModelSpec.model_validate({"name": f"hf/{folder}", **options})
    draws = torch.Generator().manual_seed(seed)
    return models.build(
        spec, shape=task.inputs, classes=task.classes, generator=draws, task=task
    ).eval()


def texts(*lengths, most=LENGTH):
    x = torch.randint(3, 30, (len(lengths), most), generator=torch.Generator().manual_seed(3))
    for row, length in enumerate(lengths):
        x[row, length:] = WORDS.padding
    return x


def reference(folder, kind):
    library = optional.load("transformers", extra="text")
    return getattr(library, kind).from_pretrained(folder, local_files_only=True).eval()


def test_tags_and_spans_are_the_librarys_and_nothing_at_padding(folders):
    x = texts(7, 4)
    mask = (x[:, :7] != WORDS.padding).long()
    tags = call.answer(build(folders / "tags", asked("tags")), x)
    theirs = reference(folders / "tags", "BertForTokenClassification")(x[:, :7], mask).logits
    torch.testing.assert_close(tags[0, :7], theirs[0])
    torch.testing.assert_close(tags[1, :4], theirs[1, :4])
    assert (tags[1, 4:] == 0).all()
    assert tags.shape == (2, LENGTH, 3)
    spans = call.answer(build(folders / "spans", asked("spans")), x)
    theirs = reference(folders / "spans", "BertForQuestionAnswering")(x[:, :7], mask)
    torch.testing.assert_close(spans[0, 1, :7], theirs.end_logits[0])
    assert (spans[1, :, 4:] == NOWHERE).all()
    assert spans.shape == (2, 2, LENGTH)


def test_both_texts_of_a_pair_have_the_types_that_the_tokeniser_gives_them(folders):
    """BERT has learned to tell a question from its context by them."""
    words = learn(["who was it", "it was the cat"], 300)
    task = replace(asked("spans", words.vocabulary), inputs=(16,), answer=(2, 16))
    model = build(folders / "bare", task, vocab_size=300, max_position_embeddings=16)
    found = words.encode([("who was it", "the cat"), ("who", "it was the cat")], length=16)
    x = padded([each.ids for each in found], 16, words.vocabulary.padding)
    mask, types = (
        padded([getattr(each, name) for each in found], 16, 0)
        for name in ("attention_mask", "type_ids")
    )
    assert types.any()
    library = optional.load("transformers", extra="text")
    plain = library.BertForQuestionAnswering(model.config).eval()
    plain.load_state_dict(model.state_dict())
    theirs = plain(x, mask, token_type_ids=types)
    logits = torch.stack([theirs.start_logits, theirs.end_logits], dim=1)
    there = mask[:, None].bool().expand_as(logits)
    torch.testing.assert_close(call.answer(model, x)[there], logits[there])
    [single] = words.encode(["who was it"], length=16)
    one = padded([single.ids], 16, words.vocabulary.padding)
    said, theirs = call.answer(model, one), plain(one, (one != words.vocabulary.padding).long())
    torch.testing.assert_close(
        said[0, 0, : len(single.ids)], theirs.start_logits[0, : len(single.ids)]
    )


def test_models_that_write_answer_for_each_place(folders):
    x = texts(7, 4)
    said = call.answer(build(folders / "gpt", asked("next-tokens")), x)
    theirs = reference(folders / "gpt", "GPT2LMHeadModel")(x[:, :7]).logits
    torch.testing.assert_close(said[0, :7], theirs[0])
    assert said.shape == (2, LENGTH, 30)
    assert (said[1, 4:] == 0).all()
    both = torch.cat([texts(9, 5), texts(8, 3, most=LENGTH - 1)], dim=1)
    said = call.answer(build(folders / "t5", asked("tokens")), both)
    theirs = reference(folders / "t5", "T5ForConditionalGeneration")(
        input_ids=both[1:, :5], decoder_input_ids=both[1:, LENGTH : LENGTH + 3]
    ).logits  # which knows two tokens more than the tokeniser
    torch.testing.assert_close(said[1, :3], theirs[0, :, :30], rtol=1e-4, atol=1e-5)
    assert said.shape == (2, LENGTH - 1, 30)


def test_an_embedding_is_the_mean_of_the_states_that_count(folders):
    x = texts(7, 4)
    task = asked("identities", width=8)
    said = call.answer(build(folders / "bert", task), x)
    states = reference(folders / "bert", "BertModel")(x[1:, :4]).last_hidden_state
    torch.testing.assert_close(said[1], states[0].mean(dim=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("train", ["head", pytest.param("lora", marks=needs("peft"))])
def test_what_does_not_train_is_fixed_and_nothing_else(folders, train):
    task = asked("classes")
    own = {"file": str(folders / "bert"), "head": "new"}
    options = {"pooling": "mean", "train": train, "weights": own, "rank": 2}
    model = build(folders / "bert", task, **options)
    plain = build(folders / "bert", task, pooling="mean", weights=own)
    x = texts(7, 4)
    torch.testing.assert_close(call.answer(model, x), call.answer(plain, x))  # adapters are 0
    spec = weights.identified(ModelSpec(name=f"hf/{folders / 'bert'}", **options))
    learned = model.state_dict().keys() - weights.fixed(spec, model)
    kinds = {"lora_A", "lora_B", "classifier"} if train == "lora" else {"classifier"}
    assert {next(kind for kind in kinds if kind in name) for name in learned} == kinds
    assert not weights.fixed(weights.random(spec), model)  # nobody else has those
    call.answer(model.train(), x).sum().backward()
    grown = {name for name, each in model.named_parameters() if each.grad is not None}
    assert grown == learned


@pytest.mark.parametrize(
    ("folder", "targets", "options", "words", "message"),
    [
        ("bert", "classes", {}, Vocabulary(40, 1, 0, 2), "knows 30 tokens, and the"),
        ("bert", "classes", {"max_position_embeddings": 5}, WORDS, "takes 5 tokens, and"),
        ("bare", "classes", {"train": "head"}, WORDS, "the folder has no weights: expected .safet"),
        ("bare", "classes", {"weights": "SELF"}, WORDS, "the folder has no .safetensors file"),
        ("t5", "next-tokens", {}, WORDS, "is 't5', which does not answer as task"),
        ("bert", "tags", {"pooling": "mean"}, WORDS, "is of a text as a whole"),
        ("bert", "classes", {"train": "haed"}, WORDS, "hf/bert.train' is \"haed\": expected 'all'"),
        ("gpt", "next-tokens", {"train": "head"}, WORDS, "no head apart from its trunk"),
    ],
)  # fmt: skip
def test_a_folder_that_does_not_fit_is_refused_in_a_line(
    folders, folder, targets, options, words, message
):
    if options.get("weights") == "SELF":
        options = {"weights": str(folders / folder)}
    with pytest.raises(ConfigError, match=message) as caught:
        build(folders / folder, asked(targets, words), **options)
    assert "\n" not in str(caught.value)


@needs("peft")
def test_an_adapter_needs_a_layer(folders):
    own = {"file": str(folders / "bert"), "head": "new"}
    with pytest.raises(ConfigError, match=r"no linear layer for targets.*some of query"):
        build(
            folders / "bert",
            asked("classes"),
            train="lora",
            targets=["nothing"],
            weights=own,
            pooling="mean",
        )
