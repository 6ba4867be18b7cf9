"""Texts as records: a table with a column of texts, or two, and tokenisers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from fedkd import config
from fedkd.config.text import BPE
from fedkd.data import parties
from fedkd.data.readers.tables import files, labels
from fedkd.data.readers.tables.cells import Cells, joined
from fedkd.data.texts import forms, tokenizer
from fedkd.data.texts.forms import FORMS, OF_ANY_TOKENIZER
from fedkd.data.texts.reading import Read, Reading
from fedkd.data.texts.tokenizer import Tokenizer
from fedkd.data.types import Dataset, Samples
from fedkd.errors import ConfigError
from fedkd.rows import Rows, Table
from fedkd.tasks import WRITTEN, Targets

_NO_LABEL: tuple[Targets, ...] = ("identities", "next-tokens")


def load(path: Path, source: config.Source, *, seed: int, targets: Targets = "classes") -> Dataset:
    """Read a table of texts and hold some out for testing, or take them from `source.test`.

    Args:
        path: as `table.read`.
        source: `text` says where texts are and how they become numbers, `label` what they are held
            against, `client` whose they are.
        seed: the experiment's; a record's side follows from the record and the seed alone.
        targets: what they are.

    Returns:
        Token numbers, int64 (N, L), or a table of views, one by each of several tokenisers.

    Raises:
        DataError: names the file and the line, the column or the tokeniser.
        ConfigError: a key is missing or does not suit.
    """
    text = _text(source)
    if targets not in FORMS:
        raise ConfigError(
            f"data.text makes texts of data.name = {str(path)!r}, and the task asks for {targets}: "
            f"choose a task of {', '.join(FORMS)}"
        )
    tokenizers = _tokenizers(text, source, targets)
    paths = parties.files(source.clients) if source.clients else [path]
    reads, table = _read(paths, source.client, text, source.labels, targets, tokenizers)
    first = next(iter(reads.values()))
    if source.test is None:
        rows = _samples(reads)
        held = labels.held(table, rows, first.cells, source.test_share, seed)
        tests, tested = reads, held
    else:
        held = torch.zeros(len(first.y), dtype=torch.bool)
        other = Path(source.test).expanduser()
        known = None if targets in _NO_LABEL else first.names
        tests, _ = _read([other], None, text, source.labels, targets, tokenizers, known)
        tested = torch.ones(len(next(iter(tests.values())).y), dtype=torch.bool)
    whole = Dataset(
        name=parties.called(paths) if source.clients else path.name,
        train=_samples(reads).subset(torch.nonzero(~held)[:, 0]),
        test=_samples(tests).subset(torch.nonzero(tested)[:, 0]),
        classes=len(first.names),
        class_names=first.names,
        groups=labels.whose(table, source.client, ~held),
        targets=targets,
        tokenizers=tokenizers,
        length=text.length,
    )
    if len(reads) == 1 or targets not in WRITTEN:
        return whole
    own = {
        name: replace(
            whole,
            train=Samples(read.x, read.y).subset(torch.nonzero(~held)[:, 0]),
            test=Samples(tests[name].x, tests[name].y).subset(torch.nonzero(tested)[:, 0]),
            classes=len(read.names),
            class_names=read.names,
            tokenizers={"": tokenizers[name]},
        )
        for name, read in reads.items()
    }
    return replace(whole, own=own)


def load_rows(
    path: Path,
    how: config.TextColumns,
    *,
    label: tuple[str, ...],
    class_names: tuple[str, ...],
    targets: Targets,
    tokenizers: Mapping[str, Tokenizer],
    length: int,
) -> Samples:
    """Read a party's own table of texts, all of which are for training.

    Args:
        path: as for `load`.
        how: which columns are texts.
        label: the columns of labels.
        class_names: the names that the parties agreed on.
        targets: what they are.
        tokenizers: those that the parties agreed on.
        length: how many tokens a text may have.

    Raises:
        DataError: as `load`.
    """
    known = None if targets == "identities" else class_names
    text = config.Text(column=how.column, cut=how.cut, length=length)
    reads, _ = _read([path], None, text, label, targets, tokenizers, known)
    return _samples(reads)


def unlabelled(path: Path, source: config.Source, like: Dataset) -> Dataset:
    """Public texts, as records whose targets nobody knows.

    Args:
        path: as for `load`, or a `.txt`, a text a line.
        source: as for `load`.
        like: the data set whose tokenisers and targets they are for.

    Raises:
        DataError: as `load`.
    """
    text = _text(source)
    written = source.labels if like.targets == "tokens" else ()
    table = files.read(path, text.columns, also=written)
    found: dict[str, Rows] = {
        name: forms.unlabelled(Reading(table, text, written, each, text.length), like.targets)
        for name, each in like.tokenizers.items()
    }
    x = Table(found) if len(found) > 1 else next(iter(found.values()))
    samples = Samples(x, torch.zeros(len(x), 0))
    return replace(like, name=path.name, train=samples, test=samples, groups=None)


def _text(source: config.Source) -> config.Text:
    if source.text is None:
        raise ValueError("Expected data.text, by which a reader of texts is chosen.")
    return source.text


def _read(
    paths: Sequence[Path],
    client: str | None,
    text: config.Text,
    label: tuple[str, ...],
    targets: Targets,
    tokenizers: Mapping[str, Tokenizer],
    known: tuple[str, ...] | None = None,
) -> tuple[dict[str, Read], Cells]:
    """What each tokeniser makes of a table, and its cells."""
    wanted = (*text.columns, *(() if targets in _NO_LABEL else label))
    columns = wanted if client is None else (*wanted, client)
    tables = [files.read(path, columns) for path in paths]
    table = tables[0] if len(tables) == 1 else joined(paths[0].parent, tables, columns)
    if len(tokenizers) > 1 and targets not in (*OF_ANY_TOKENIZER, *WRITTEN):
        raise ConfigError(
            f"data.text.tokenizer names {len(tokenizers)} tokenisers, and the task's targets "
            f"({targets}) depend on which it is: name one"
        )
    found = {
        name: FORMS[targets](Reading(table, text, label, each, text.length, known))
        for name, each in tokenizers.items()
    }
    return found, table


def _samples(reads: Mapping[str, Read]) -> Samples:
    """Records of one view, or a table of several, with the first one's targets."""
    first = next(iter(reads.values()))
    x = first.x if len(reads) == 1 else Table({name: each.x for name, each in reads.items()})
    return Samples(x, first.y)


def _tokenizers(text: config.Text, source: config.Source, targets: Targets) -> dict[str, Tokenizer]:
    """The tokenisers that are named, held against their SHA-256 where that was agreed on."""
    found = {
        name: _learned(text, source, targets) if file == BPE else tokenizer.read(file)
        for name, file in text.tokenizers.items()
    }
    tokenizer.check_agreed(found, text.sha256)
    return found


def _learned(text: config.Text, source: config.Source, targets: Targets) -> Tokenizer:
    """From the public texts, and from what is written of them where the table has that."""
    public = source.public.source if isinstance(source, config.Data) and source.public else None
    file = text.texts or (None if public == "held-out" else public)
    if file is None:
        raise ConfigError(
            "data.text.texts is missing: byte pairs are learned from public texts alone, since a "
            "vocabulary tells what it was learned from: name a file of such, or a tokeniser by "
            "data.text.tokenizer"
        )
    path = Path(file).expanduser()
    if path.resolve() == Path(source.name).expanduser().resolve():
        raise ConfigError(
            f"byte pairs would be learned from {file!r}, which data.name is too: these are the "
            "clients' texts, and a vocabulary tells what it was learned from: name a file of "
            "public ones, data.text.texts"
        )
    written = source.labels if targets == "tokens" else ()
    table = files.read(path, text.columns, also=written)
    columns = (*text.columns, *(name for name in written if name in table.header))
    texts = (cell for column in columns for cell in table.column(column))
    return tokenizer.learn(texts, text.vocabulary)
