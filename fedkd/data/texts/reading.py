"""A table of texts that is being read, and what was read of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from fedkd.config import TextColumns
from fedkd.data.readers.tables.cells import Cells
from fedkd.data.texts.tokenizer import Tokenizer, padded
from fedkd.errors import ConfigError


@dataclass(frozen=True)
class Reading:
    """A table that is being read.

    Attributes:
        table: its cells.
        how: which columns are texts, and whether long ones are cut.
        labels: the columns of labels.
        tokenizer: by which texts become numbers.
        length: how many tokens a text may have, L.
        known: the names of classes that the parties agreed on; None: those that the table has.
    """

    table: Cells
    how: TextColumns
    labels: tuple[str, ...]
    tokenizer: Tokenizer
    length: int
    known: tuple[str, ...] | None = None

    def encoded(self, texts: Sequence[Any], **options: Any) -> list[Any]:
        """Texts or pairs as the library's encodings, no longer than `length`.

        Raises:
            DataError: one is longer, and is not to be cut.
        """
        found = self.tokenizer.encode(texts, length=self.length, **options)
        for row, each in enumerate(found):
            if each.overflowing and not self.how.cut:
                raise self.table.fault(
                    row,
                    f": a text has {self.tokenizer.count(texts[row], **options)} tokens, and "
                    f"data.text.length is {self.length}: raise it as far as models take, or have "
                    "long texts cut, data.text.cut = true",
                )
        return found

    def inputs(self) -> Tensor:
        """The texts, of pairs both with a mark between, as int64 (N, L)."""
        columns = [self.table.column(name) for name in self.how.columns]
        texts = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
        return self.padded([each.ids for each in self.encoded(texts)])

    def padded(self, rows: Sequence[Sequence[int]], *, length: int | None = None) -> Tensor:
        """Rows of token numbers as int64 (N, L)."""
        return padded(rows, length or self.length, self.tokenizer.vocabulary.padding)

    def only_column(self) -> str:
        """The one column of texts."""
        if len(self.how.columns) > 1:
            raise ConfigError(
                f"data.text.column is {self.how.column!r}, and the task asks for one text: name one"
            )
        return self.how.columns[0]

    def only_label(self, what: str) -> str:
        """The one column of labels."""
        if len(self.labels) > 1:
            raise ConfigError(
                f"data.label names {len(self.labels)} columns, and a text has one {what}: name one "
                f"of {', '.join(self.labels)}"
            )
        return self.labels[0]


class Read(NamedTuple):
    """What a table holds.

    Attributes:
        x: token numbers, int64 (N, ...).
        y: targets, as `fedkd.tasks.Targets` says.
        names: of their classes.
        cells: of each record what tells its target, for the hash that holds it out.
    """

    x: Tensor
    y: Tensor
    names: tuple[str, ...]
    cells: list[str]
