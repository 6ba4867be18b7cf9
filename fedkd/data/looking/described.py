"""What a file of data holds, as plain values: what was counted, what is odd, what is guessed of it.

All of it is statistics of data that may be private: for its owner's eyes, and for no file that
other parties see.
"""

from dataclasses import dataclass
from typing import Any, Literal

ColumnKind = Literal["number", "category", "date", "identifier", "text", "constant", "empty"]
"""What the cells of a column are."""
PictureKind = Literal["classes", "masks", "boxes", "nothing"]
"""What is told of pictures in a folder."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its header.
        kind: what its cells are.
        missing: how many cells have no value.
        distinct: how many different values there are.
        rarest: how many cells have the value that the fewest have; 0 without values.
        low: the least number; None of what is no number.
        high: the largest number.
        whole: whether all numbers are integers.
        decimals: whether a cell has a fraction with a comma.
        values: the commonest values with how many cells have each, twenty at most; none of texts,
            identifiers and numbers with many values.
    """

    name: str
    kind: ColumnKind
    missing: int = 0
    distinct: int = 0
    rarest: int = 0
    low: float | None = None
    high: float | None = None
    whole: bool = False
    decimals: bool = False
    values: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class ArrayFound:
    """An array of an .npz file or a folder of .npy files.

    Attributes:
        name: such as `x_train`.
        shape: with records first.
        dtype: numpy's name of its type.
        low: the least value; None where it holds no numbers.
        high: the largest value.
        distinct: how many different values targets and clients have; 0 of inputs.
        values: the commonest of these with how often each stands there, twenty at most.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    low: float | None = None
    high: float | None = None
    distinct: int = 0
    values: tuple[tuple[str, int], ...] = ()

    @property
    def whole(self) -> bool:
        """Whether its type is one of integers."""
        return self.dtype.startswith(("int", "uint", "bool"))


@dataclass(frozen=True)
class Pictures:
    """A folder of pictures.

    Attributes:
        kind: what is told of them.
        sizes: (height, width, channels), how many pictures have it and the first of them by name,
            the commonest first.
        classes: of a folder a class, their names with how many pictures each has.
        clients: where each client has a folder, their names with how many pictures each has.
        tests: how many pictures are for testing; 0 where none are apart.
        medical: whether some are DICOM or NIfTI.
    """

    kind: PictureKind
    sizes: tuple[tuple[tuple[int, int, int], int, str], ...]
    classes: tuple[tuple[str, int], ...] = ()
    clients: tuple[tuple[str, int], ...] = ()
    tests: int = 0
    medical: bool = False


@dataclass(frozen=True)
class Concern:
    """Something that deserves a look.

    Attributes:
        about: the column, array or file; empty: all of it.
        what: in one line.
    """

    about: str
    what: str


@dataclass(frozen=True)
class Guess:
    """A line of an experiment's file, and why it is guessed.

    Attributes:
        key: with dots, such as `data.label`.
        value: as TOML has it.
        why: in one line, for a comment.
        private: whether the value follows from what single records hold, so that it has to be
            public knowledge before others see it.
    """

    key: str
    value: Any
    why: str = ""
    private: bool = False


@dataclass(frozen=True)
class Looked:
    """What was found in a file or a folder.

    Attributes:
        path: as it was given.
        form: what it is, in words.
        records: how many; those of a test set of its own are not among them.
        columns: of a table; none of other forms.
        arrays: of an .npz file or a folder of .npy files; none of other forms.
        pictures: of a folder of pictures; None of other forms.
        guesses: which part is what, as lines of `[task]` and `[data]`.
        missing: what has to be there before it can be learned from; empty: nothing.
        concerns: what is odd about it.
    """

    path: str
    form: str
    records: int
    columns: tuple[Column, ...] = ()
    arrays: tuple[ArrayFound, ...] = ()
    pictures: Pictures | None = None
    guesses: tuple[Guess, ...] = ()
    missing: str = ""
    concerns: tuple[Concern, ...] = ()

    @property
    def guessed(self) -> dict[str, Any]:
        """The guessed values by key."""
        return {guess.key: guess.value for guess in self.guesses}


@dataclass(frozen=True)
class Wished:
    """What whoever asks knows already, or what stands beside the file.

    Attributes:
        task: by name; None: it is guessed.
        labels: the columns of labels; none: they are guessed.
        public: a file or folder that all parties may see; None: none.
        test: a table of test records; None: none.
        items: a catalogue of items, one a line; None: none.
    """

    task: str | None = None
    labels: tuple[str, ...] = ()
    public: str | None = None
    test: str | None = None
    items: str | None = None


NOTHING = Wished()
"""Nothing is known already."""
