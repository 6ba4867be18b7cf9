"""What a table of texts tells for each kind of targets: inputs as token numbers, and targets."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from fedkd.data.readers.tables import labels
from fedkd.data.texts.reading import Read, Reading
from fedkd.data.texts.tokenizer import first_tokens, padded
from fedkd.errors import ConfigError, DataError
from fedkd.tasks import Targets
from fedkd.tasks.likelihoods.categorical import IGNORED


def _classes(reading: Reading) -> Read:
    label = reading.only_label("class")
    cells = [labels.plain(cell) for cell in reading.table.column(label)]
    if reading.known is None:
        y, names = labels.encode(cells)
        labels.check_classes(reading.table, label, cells, names)
    else:
        names = reading.known
        y = labels.coded(reading.table, label, names)
    return Read(reading.inputs(), y, names, cells)


def _binary(reading: Reading) -> Read:
    return _in_columns(reading, "binary")


def _numbers(reading: Reading) -> Read:
    return _in_columns(reading, "numbers")


def _in_columns(reading: Reading, targets: Targets) -> Read:
    names = reading.known or reading.labels
    y = labels.values(reading.table, names, targets)
    return Read(reading.inputs(), y, names, [repr(row) for row in y.tolist()])


def _identities(reading: Reading) -> Read:
    """A text and its answer; equal answers are one identity, which has a number for a name.

    What answers say would stand in every summary and shared file otherwise.
    """
    x, answers = _pairs(reading)
    y, found = labels.encode(answers)
    return Read(x, y, tuple(str(number) for number in range(len(found))), answers)


def _pairs(reading: Reading) -> tuple[Tensor, list[str]]:
    """Both texts of each record apart, (N, 2, L), and the second ones."""
    if len(reading.how.columns) != 2:
        raise ConfigError(
            f"data.text.column is {reading.how.column!r}, and the task asks for pairs: name two "
            'columns, such as ["question", "answer"]'
        )
    both = [reading.table.column(name) for name in reading.how.columns]
    sides = [reading.padded([each.ids for each in reading.encoded(side)]) for side in both]
    return torch.stack(sides, dim=1), both[1]


def _tags(reading: Reading) -> Read:
    """Words and as many tags, both with blanks between; a tag stands at its word's first token."""
    column, label = reading.only_column(), reading.only_label("column of tags")
    texts = [cell.split() for cell in reading.table.column(column)]
    tags = [cell.split() for cell in reading.table.column(label)]
    for row, (words, own) in enumerate(zip(texts, tags, strict=True)):
        if len(words) != len(own):
            raise reading.table.fault(
                row, f", column {label!r}: {len(own)} tags of {len(words)} words; expected as many"
            )
    names = reading.known or tuple(sorted({tag for own in tags for tag in own}))
    codes = {name: code for code, name in enumerate(names)}
    encodings = reading.encoded(texts, is_pretokenized=True)
    y = torch.full((len(texts), reading.length), IGNORED)
    for row, (encoding, own) in enumerate(zip(encodings, tags, strict=True)):
        for place, word in first_tokens(encoding):
            if own[word] not in codes:
                raise reading.table.fault(
                    row, f", column {label!r}: {own[word]!r} is no tag; expected {', '.join(names)}"
                )
            y[row, place] = codes[own[word]]
    x = reading.padded([each.ids for each in encodings])
    return Read(x, y, names, [" ".join(own) for own in tags])


def _spans(reading: Reading) -> Read:
    """A question and the text that answers it; targets are the answer's first and last token."""
    if len(reading.how.columns) != 2:
        raise ConfigError(
            f"data.text.column is {reading.how.column!r}, and the task asks for a question and the "
            'text that answers it: name two columns, such as ["question", "context"]'
        )
    asked, contexts = (reading.table.column(name) for name in reading.how.columns)
    answers = reading.table.column(reading.labels[0])
    starts = reading.table.column(reading.labels[1]) if len(reading.labels) > 1 else None
    encodings = reading.encoded(list(zip(asked, contexts, strict=True)))
    y = torch.full((len(answers), 2), IGNORED)
    for row, (encoding, context, answer) in enumerate(
        zip(encodings, contexts, answers, strict=True)
    ):
        first = context.find(answer) if starts is None else _place(reading, row, starts[row])
        if first < 0 or context[first : first + len(answer)] != answer:
            raise reading.table.fault(
                row,
                f", column {reading.labels[0]!r}: {answer!r:.60} does not stand in the text; "
                "expected a part of it",
            )
        inside = [
            place
            for place, (part, (left, right)) in enumerate(
                zip(encoding.sequence_ids, encoding.offsets, strict=True)
            )
            if part == 1 and left < first + len(answer) and right > first
        ]
        if inside:  # else it was cut away, and does not count
            y[row] = torch.tensor([inside[0], inside[-1]])
    names = tuple(str(place) for place in range(reading.length))
    return Read(reading.padded([each.ids for each in encodings]), y, names, answers)


def _place(reading: Reading, row: int, cell: str) -> int:
    """At which character an answer starts."""
    if not cell.isdecimal():
        raise reading.table.fault(
            row,
            f", column {reading.labels[1]!r}: {cell!r:.60} is no place; expected at which "
            "character of the text the answer starts, from 0",
        )
    return int(cell)


def _tokens(reading: Reading) -> Read:
    """A text and what is to be written of it: inputs (N, 2 L - 1), the text, then what was written.

    A model that writes is shown what it wrote before, so that is an input: the target without its
    last token. Targets, (N, L - 1), are the target without its first.
    """
    label = reading.only_label("text to be written")
    written = reading.table.column(label)
    rows = [each.ids for each in reading.encoded(written)]
    _check_marks(reading, rows, both=True)
    before, y = shifted(rows, reading.length - 1, reading.tokenizer.vocabulary.padding)
    return Read(torch.cat([reading.inputs(), before], dim=1), y, reading.tokenizer.names, written)


def _next_tokens(reading: Reading) -> Read:
    """Texts without their last token, (N, L - 1), and without their first."""
    texts = reading.table.column(reading.only_column())
    rows = [each.ids for each in reading.encoded(texts)]
    _check_marks(reading, rows, both=False)
    x, y = shifted(rows, reading.length - 1, reading.tokenizer.vocabulary.padding)
    return Read(x, y, reading.tokenizer.names, texts)


def _check_marks(reading: Reading, rows: Sequence[list[int]], *, both: bool) -> None:
    """Refuse texts of which a model could not learn the first token, or never where to end.

    Args:
        reading: by which tokeniser.
        rows: the texts' tokens.
        both: whether they need a start and an end.

    Raises:
        DataError: the start is padding, of which a model says nothing, or a mark is missing.
    """
    marks = reading.tokenizer.vocabulary
    if any(row[:1] == [marks.padding] for row in rows):
        raise DataError(
            f"the tokeniser (data.text.tokenizer) begins texts with token {marks.padding}, its "
            "padding, which counts for nothing: expected another pad_token, as its "
            "tokenizer_config.json may name one, or 'bpe'"
        )
    if both and any(row[:1] != [marks.start] or row[-1:] != [marks.end] for row in rows):
        raise DataError(
            "the tokeniser (data.text.tokenizer) puts no start before a text or no end after it, "
            "and a model writes from the one to the other: expected a tokenizer.json whose "
            "post_processor adds both, or 'bpe'"
        )


def shifted(rows: Sequence[Sequence[int]], length: int, padding: int) -> tuple[Tensor, Tensor]:
    """Rows of token numbers without their last, and without their first: int64 (N, length) each."""
    x = padded([row[:-1] for row in rows], length, padding)
    return x, padded([row[1:] for row in rows], length, IGNORED)


FORMS: Mapping[Targets, Callable[[Reading], Read]] = {
    "binary": _binary,
    "classes": _classes,
    "identities": _identities,
    "next-tokens": _next_tokens,
    "numbers": _numbers,
    "spans": _spans,
    "tags": _tags,
    "tokens": _tokens,
}
"""Every kind of targets that texts can have."""

OF_ANY_TOKENIZER: tuple[Targets, ...] = ("binary", "classes", "identities", "numbers")
"""Targets that do not depend on how a text is cut into tokens."""


def unlabelled(reading: Reading, targets: Targets) -> Tensor:
    """The inputs of texts whose targets nobody knows, as `FORMS` has them.

    Of what is to be written only the start is shown, unless the table has a column of it: then all
    that was written before is, as a model that writes needs.
    """
    match targets:
        case "identities":
            return _pairs(reading)[0]
        case "tags":
            texts = [cell.split() for cell in reading.table.column(reading.only_column())]
            return reading.padded(
                [each.ids for each in reading.encoded(texts, is_pretokenized=True)]
            )
        case "tokens" if set(reading.labels) & set(reading.table.header):
            return _tokens(reading).x
        case "tokens":
            x, start = reading.inputs(), [reading.tokenizer.vocabulary.start]
            return torch.cat(
                [x, reading.padded([start] * len(x), length=reading.length - 1)], dim=1
            )
        case "next-tokens":
            return _next_tokens(reading).x
    return reading.inputs()
