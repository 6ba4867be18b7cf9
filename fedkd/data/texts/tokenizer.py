"""Texts as numbers: tokenisers of the library `tokenizers`, from a file or learned from texts.

What a tokeniser was learned from shows in its vocabulary, which all parties hold: texts of a party
alone never go into one.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from fedkd import config, optional
from fedkd.errors import DataError
from fedkd.tasks.vocabulary import Vocabulary

PADDING, UNKNOWN, START, END, MASK = MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The marks of a tokeniser that is learned here."""

_Source = TypeVar("_Source", bound=config.Source)

_FILE, _ABOUT = "tokenizer.json", "tokenizer_config.json"
_KNOWN = {
    "padding": ("[PAD]", "<pad>", "<|endoftext|>", "</s>"),
    "start": ("[CLS]", "<s>", "<bos>", "<|endoftext|>", "<pad>"),
    "end": ("[SEP]", "</s>", "<eos>", "<|endoftext|>"),
}
"""Of each mark the tokens that may be it, the likeliest first; a folder may say which it is."""
_SAID = {
    "padding": ("pad_token",),
    "start": ("cls_token", "bos_token"),
    "end": ("sep_token", "eos_token"),
}


@dataclass(frozen=True)
class Tokenizer:
    """A tokeniser, as the content of its file and what its marks are.

    Attributes:
        content: a `tokenizer.json`.
        vocabulary: how many tokens it has, and which are marks.
    """

    content: str
    vocabulary: Vocabulary

    @property
    def digest(self) -> str:
        """The SHA-256 of its content, in hexadecimal."""
        return sha256(self.content.encode()).hexdigest()

    @cached_property
    def _library(self) -> Any:
        found = optional.load("tokenizers", extra="text").Tokenizer.from_str(self.content)
        found.no_padding()
        found.encode_special_tokens = True  # a mark that somebody writes into a text is text
        return found

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Its tokens by number; a number without a token is its own name."""
        by_token = self._library.get_vocab(with_added_tokens=True)
        by_number = {number: token for token, number in by_token.items()}
        return tuple(by_number.get(n, str(n)) for n in range(self.vocabulary.size))

    def encode(self, texts: Sequence[Any], *, length: int, **options: Any) -> list[Any]:
        """Texts, or pairs of such, as the library's encodings, with marks.

        Args:
            texts: N of them.
            length: the most tokens of a text; of a longer one the last are in `overflowing`, and of
                a pair the longer text is cut first.
            options: of the library's `encode_batch`, such as `is_pretokenized`.
        """
        self._library.enable_truncation(length)
        found: list[Any] = self._library.encode_batch(list(texts), **options)
        return found

    def count(self, text: Any, **options: Any) -> int:
        """How many tokens a text or a pair has, its marks among them, before it is cut."""
        self._library.no_truncation()
        return len(self._library.encode_batch([text], **options)[0].ids)

    def decode(self, ids: Tensor) -> list[str]:
        """Token numbers (N, L) as texts, marks left out and nothing after the first end."""
        return [self._library.decode(self._until_end(row)).strip() for row in ids.tolist()]

    def _until_end(self, row: list[int]) -> list[int]:
        marks = self.vocabulary
        first, rest = row[:1], row[1:]  # one mark may begin and end a text
        whole = first + (rest[: rest.index(marks.end)] if marks.end in rest else rest)
        return [token for token in whole if token not in (marks.padding, marks.start, marks.end)]


def settled(data: _Source, tokenizers: Mapping[str, Tokenizer]) -> _Source:
    """`[data]` with the SHA-256 of each tokeniser, which must be what it has already.

    Raises:
        DataError: one is another.
    """
    if data.text is None:
        return data
    check_agreed(tokenizers, data.text.sha256)
    digests = {name: each.digest for name, each in tokenizers.items()}
    return data.model_copy(update={"text": data.text.model_copy(update={"sha256": digests})})


def check_agreed(tokenizers: Mapping[str, Tokenizer], digests: Mapping[str, str]) -> None:
    """Hold tokenisers against the SHA-256 that was agreed on, where one was.

    Raises:
        DataError: one is another.
    """
    for name, each in tokenizers.items():
        if (wanted := digests.get(name, each.digest)) != each.digest:
            called = f" {name!r}" if name else ""
            raise DataError(
                f"tokeniser{called} (data.text.tokenizer) has SHA-256 {each.digest[:16]}..., and "
                f"{wanted[:16]}... was agreed on: all parties need the same one"
            )


def first_tokens(encoding: Any) -> list[tuple[int, int]]:
    """Of each word of an encoding of words, where its first token stands, and which word it is."""
    words = encoding.word_ids
    return [
        (place, word)
        for place, (before, word) in enumerate(zip([None, *words], words, strict=False))
        if word is not None and word != before
    ]


def padded(rows: Sequence[Sequence[int]], length: int, padding: int) -> Tensor:
    """Rows of numbers, none longer than `length`, as int64 (N, length)."""
    found = torch.full((len(rows), length), padding)
    for place, row in enumerate(rows):
        found[place, : len(row)] = torch.tensor(row, dtype=torch.int64)
    return found


def read(name: str) -> Tokenizer:
    """A tokeniser's file, or that of a Hugging Face folder; no code of the folder is run.

    Raises:
        DataError: there is none, it is damaged, or has no mark for padding, start or end.
    """
    path = Path(name).expanduser()
    file = path / _FILE if path.is_dir() else path
    try:
        content = file.read_text(encoding="utf-8")
        about = path / _ABOUT
        said = json.loads(about.read_text(encoding="utf-8")) if about.is_file() else {}
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file}: {error}; expected a tokenizer.json, as the library tokenizers writes it "
            "(data.text.tokenizer)"
        ) from error
    return parse(content, said if isinstance(said, Mapping) else {}, where=str(file))


def parse(content: str, said: Mapping[str, Any] | None = None, *, where: str) -> Tokenizer:
    """A tokeniser from the content of its file.

    Args:
        content: a `tokenizer.json`.
        said: what a `tokenizer_config.json` says of marks, such as `{"pad_token": "<pad>"}`.
        where: what the content is called.

    Raises:
        DataError: it is damaged, or has no mark for padding, start or end.
    """
    library = optional.load("tokenizers", extra="text")
    try:
        found = library.Tokenizer.from_str(content)
    except Exception as error:  # the library raises Exception itself
        raise DataError(f"{where}: {error}; expected a tokenizer.json") from error
    tokens = found.get_vocab(with_added_tokens=True)
    marks = {}
    for mark, known in _KNOWN.items():
        named = [_token((said or {}).get(key)) for key in _SAID[mark]]
        token = next((each for each in (*named, *known) if each in tokens), None)
        if token is None:
            raise DataError(
                f"{where}: has no token for {mark}; expected one of {', '.join(known)}, or one "
                f"that {_ABOUT} names"
            )
        marks[mark] = tokens[token]
    return Tokenizer(content, Vocabulary(size=max(tokens.values()) + 1, **marks))


def _token(value: Any) -> Any:
    """A token as `tokenizer_config.json` writes it: text, or text with flags."""
    return value.get("content") if isinstance(value, Mapping) else value


def learn(texts: Iterable[str], size: int) -> Tokenizer:
    """A tokeniser of byte pairs, learned from public texts; the same texts give the same.

    Sennrich, Haddow & Birch 2016, arXiv:1508.07909, on bytes, so that every text has tokens.

    Args:
        texts: public.
        size: the most tokens, 256 bytes and five marks among them.
    """
    library = optional.load("tokenizers", extra="text")
    bytes_of = library.pre_tokenizers.ByteLevel
    found = library.Tokenizer(library.models.BPE(unk_token=UNKNOWN))
    found.normalizer = library.normalizers.NFC()
    found.pre_tokenizer = bytes_of(add_prefix_space=True)
    found.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(MARKS),
        initial_alphabet=sorted(bytes_of.alphabet()),
        show_progress=False,
    )
    found.train_from_iterator(texts, trainer)
    marks = [(mark, found.token_to_id(mark)) for mark in (START, END)]
    found.post_processor = library.processors.TemplateProcessing(
        single=f"{START} $A {END}", pair=f"{START} $A {END} $B:1 {END}:1", special_tokens=marks
    )
    return parse(found.to_str(), where="the tokeniser that was learned")
