"""How texts become numbers."""

from typing import Self

from pydantic import Field, model_validator

from fedkd.config.parts import Frozen, absent

BPE = "bpe"
"""In place of a tokeniser's file: one is trained on public texts."""


class TextColumns(Frozen):
    """Where a file has its texts, and how they are cut."""

    column: str | tuple[str, ...] = "text"
    """The column of texts; two of pairs, such as ["question", "context"]."""
    cut: bool = Field(default=False, exclude_if=absent)
    """Whether a text with more tokens than `length` is cut; it is refused otherwise."""

    @model_validator(mode="after")
    def _one_or_two(self) -> Self:
        if not 1 <= len(set(self.columns)) == len(self.columns) <= 2:
            raise ValueError(
                f"text.column is {self.column!r}: expected one column, or two of pairs"
            )
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of texts."""
        return (self.column,) if isinstance(self.column, str) else self.column


class Text(TextColumns):
    """Data whose records are texts; see `fedkd.data.texts.reader`."""

    tokenizer: str | dict[str, str] = BPE
    """A tokenizer.json, or a Hugging Face folder that has one. `"bpe"`: byte pairs are learned from
    `texts`. Several by name, { words = "bpe", bert = "FOLDER" }: each makes a view of that name."""
    texts: str | None = Field(default=None, min_length=1)
    """A file of public texts, from which `"bpe"` is learned: .txt, a text a line, or a table with
    the column of texts. The public set's file unless given."""
    vocabulary: int = Field(default=4000, ge=300)
    """How many tokens `"bpe"` may have; 256 bytes and five marks are among them."""
    length: int = Field(default=128, ge=4)
    """How many tokens a record has, its marks among them: shorter ones are padded."""
    sha256: dict[str, str] = Field(default={}, exclude_if=absent)
    """Of each tokeniser's content by its name, `""` of a single one: which one was agreed on."""

    @model_validator(mode="after")
    def _texts_are_for_learning(self) -> Self:
        if self.texts is not None and BPE not in self.tokenizers.values():
            raise ValueError(
                f"data.text.texts is {self.texts!r}, and data.text.tokenizer is "
                f"{self.tokenizer!r}, which learns nothing: leave it out"
            )
        if not self.tokenizers or ("" in self.tokenizers and len(self.tokenizers) > 1):
            raise ValueError(f"data.text.tokenizer is {self.tokenizer!r}: expected names and files")
        return self

    @property
    def tokenizers(self) -> dict[str, str]:
        """Tokenisers by name; a single one has the name `""`."""
        return {"": self.tokenizer} if isinstance(self.tokenizer, str) else self.tokenizer
