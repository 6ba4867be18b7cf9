"""Where data comes from: what `[data]` says, and what it says of records of each kind."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from fedkd.config.parts import Frozen, absent
from fedkd.config.pictures import PictureKeys
from fedkd.config.text import Text

Layout = Literal["as-stored", "channels-last"]
"""How arrays are laid out where their shape does not say: a record is what was stored, channels
first if it has any, or its channels are the last axis."""


def _named(value: Any) -> Any:
    """A number as it is, or lists of names, where a class may be named by its number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, list | tuple) and all(isinstance(each, list | tuple) for each in value):
        return tuple(tuple(str(name) for name in stage) for stage in value)
    raise PydanticCustomError("stages", "a number of stages, or a list of names for each")


class Stream(Frozen):
    """Data that comes in stages, one after the other: what one stage has, no later one has."""

    by: Literal["classes", "domains", "time"]
    """What tells stages apart: a record's class, where it comes from, or when it came."""
    stages: Annotated[int | tuple[tuple[str, ...], ...], BeforeValidator(_named)]
    """How many, or of each the names of its classes or domains. A number deals classes in order,
    and time in equal parts."""
    column: str | None = Field(default=None, min_length=1)
    """CSV: the column of domains, `data.client` unless given; or of time, without which records
    come in the order in which they stand. It is no feature."""
    rounds: int = Field(default=1, ge=1)
    """How many rounds a stage of a federation lasts; the last one lasts to the end."""
    scenario: Literal["class-incremental", "task-incremental"] = "class-incremental"
    """`classes`: whether an answer is one of all classes, or of those of its record's stage, which
    is told: a head a stage. By `domains` and `time` it is domain-incremental. The three scenarios
    are those of van de Ven & Tolias 2019, arXiv:1904.07734."""

    @model_validator(mode="after")
    def _stages_are_told_apart(self) -> Self:
        stages = self.stages
        if isinstance(stages, int):
            if stages < 2:
                raise ValueError(f"data.stream.stages is {stages}: expected at least 2")
            if self.by == "domains":
                raise ValueError(
                    f"data.stream.stages is {stages}, and by = 'domains' needs the domains' names: "
                    'expected a list a stage, such as [["amazon"], ["imdb", "yelp"]]'
                )
            return self
        if self.by == "time":
            raise ValueError("data.stream.stages has names, and by = 'time': expected a number")
        if len(stages) < 2:
            raise ValueError(f"data.stream.stages has {len(stages)} stage: expected at least 2")
        for number, stage in enumerate(stages):
            if not stage:
                raise ValueError(
                    f"data.stream.stages[{number}] is empty: a stage without data teaches nothing, "
                    "leave it out"
                )
        names = [name for stage in stages for name in stage]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"data.stream.stages has {twice[0]!r} twice: expected each name once")
        return self

    @model_validator(mode="after")
    def _keys_say_something(self) -> Self:
        if self.by == "classes" and self.column is not None:
            raise ValueError(
                f"data.stream.column is {self.column!r}, and by = 'classes': leave it out"
            )
        if self.by != "classes" and self.scenario == "task-incremental":
            raise ValueError(
                f"data.stream.scenario is 'task-incremental', and by = {self.by!r} has the same "
                "classes in each stage: leave it out"
            )
        return self

    @property
    def count(self) -> int:
        """How many stages there are."""
        return self.stages if isinstance(self.stages, int) else len(self.stages)


class Interactions(Frozen):
    """CSV: which user took which item, a row each; see `fedkd.data.readers.interactions`."""

    user: str = "user"
    """The column that says who."""
    item: str = "item"
    """The column that says what."""
    rating: str | None = None
    """The column of ratings, where there are some; by `threshold`."""
    threshold: float | None = None
    """The least rating with which an item counts as taken; with `rating` alone."""
    time: str | None = None
    """The column of times, as numbers: the latest are held out; by a hash unless given."""
    items: str | None = Field(default=None, min_length=1)
    """A file that names the catalogue, an item a line: public, learned from no party's data."""
    held: float = Field(default=0.2, gt=0, lt=1)
    """The share of a test user's items that is held out; the rest is what the model is shown."""

    @model_validator(mode="after")
    def _rated_by_both(self) -> Self:
        if (self.rating is None) != (self.threshold is None):
            raise ValueError(
                f"interactions.rating is {self.rating!r} and interactions.threshold "
                f"{self.threshold}: expected both, a column and the least that counts, or neither"
            )
        return self


def _coded(value: Any) -> Any:
    """`"public"`, or by column `"public"` or a list of codes, where numbers are codes too."""
    if value == "public":
        return value
    if isinstance(value, Mapping) and all(_are_codes(codes) for codes in value.values()):
        return {
            str(column): codes if codes == "public" else tuple(map(str, codes))
            for column, codes in value.items()
        }
    raise PydanticCustomError(
        "codes", '"public", or for each column "public" or a list of codes, such as ["m", "f"]'
    )


def _are_codes(codes: Any) -> bool:
    return codes == "public" or (
        isinstance(codes, list | tuple)
        and len({*map(str, codes)}) == len(codes) > 0
        and all(isinstance(each, str | int) and each != "" for each in codes)
    )


def _is_point(value: object) -> bool:
    return value == "."


class Source(PictureKeys):
    """Where data comes from, and what is held out for testing."""

    name: str = "fashion-mnist-sample"
    """A known name, such as `fashion-mnist-sample`, or the path of an .npz, .csv or .parquet file,
    of a folder of .npy files or of pictures, or of a table of texts; or `package.module:function`,
    which returns arrays or a data set of torch (`fedkd.data.given`)."""
    clients: tuple[str, ...] = Field(default=(), exclude_if=absent)
    """In place of `name`: a file or a folder of its own for each natural client, in this order; `*`
    in one is any text."""
    label: str | tuple[str, ...] = "label"
    """CSV: the column of labels; several where a row has several labels or numbers."""
    client: str | None = None
    """CSV: the column that says whose row it is; left out of the features."""
    ignore: tuple[str, ...] = Field(default=(), exclude_if=absent)
    """CSV: columns that are left out, such as dates and identifiers; `*` in one is any text."""
    codes: Annotated[
        Literal["public"] | dict[str, Literal["public"] | tuple[str, ...]], BeforeValidator(_coded)
    ] = Field(default={}, exclude_if=absent)
    """CSV: which codes a column may have, by its name: each becomes a feature `COLUMN=CODE`, 0 or
    1; `*` is the code of all others. `public`: those that the proxy set's own file has. They are
    public, and learned from no party's data."""
    decimal: Literal[".", ","] = Field(default=".", exclude_if=_is_point)
    """CSV: what stands in front of a number's decimals."""
    missing: Literal["refuse", "indicate"] = "refuse"
    """CSV: of cells without a value; `indicate`: 0, and a column `X?` more for each column `X`."""
    limits: dict[str, tuple[float, float]] = Field(default={}, exclude_if=absent)
    """Rows of features: what becomes -1 and 1 of a column, by its name; others stay as they are."""
    range: tuple[float, float] | None = Field(default=None, exclude_if=absent)
    """Arrays and pictures: what becomes 0 and 1 of their values, such as [-1024, 3071]; all are
    within. It is public, and learned from no party's data. Unless given, uint8 is 0..255, 16 bits
    of a picture 0..65535, and all others but rows must be in [0, 1]."""
    layout: Layout | None = Field(default=None, exclude_if=absent)
    """Arrays: how records are laid out; unless given, images are told by their shape."""
    views: dict[str, tuple[str, ...]] = Field(default={}, exclude_if=absent)
    """Rows with named columns: which columns make a view, by its name; `*` in a pattern is any
    text. The arrays `x_train.NAME` of an .npz file are views as they are."""
    interactions: Interactions | None = Field(default=None, exclude_if=absent)
    """CSV of a recommender: its columns, and the catalogue of items."""
    text: Text | None = Field(default=None, exclude_if=absent)
    """Tables of texts: which columns they are, and how they become numbers."""
    tile: int | None = Field(default=None, ge=1, exclude_if=absent)
    """Pictures: the side of the squares into which all are cut, each a record; none unless
    given."""
    test_share: float = Field(default=0.2, gt=0, lt=1)
    """CSV, pictures and hospitals: the share held out for testing, each by a hash of itself."""
    test: str | None = Field(default=None, min_length=1)
    """CSV: a file of its own whose rows are for testing; then none is held out."""
    stream: Stream | None = Field(default=None, exclude_if=absent)
    """Whether data comes in stages; None: all of it is there from the beginning."""

    @model_validator(mode="after")
    def _clients_in_place_of_a_name(self) -> Self:
        if not self.clients:
            return self
        if "name" in self.model_fields_set and self.name != self.clients[0]:
            raise ValueError(
                f"data.clients names a file for each client, and data.name is {self.name!r}: leave "
                "one of them out"
            )
        if self.client is not None:
            raise ValueError(
                f"data.client is {self.client!r}, and data.clients names a file for each client: "
                "leave one of them out, or the column out by data.ignore"
            )
        object.__setattr__(self, "name", self.clients[0])  # which says what form all of them have
        return self

    @model_validator(mode="after")
    def _columns_of_codes_are_named_plainly(self) -> Self:
        for column in self.codes if isinstance(self.codes, dict) else ():
            if "=" in column or column.endswith("?"):
                raise ValueError(
                    f"data.codes has the column {column!r}, and features are named COLUMN=CODE and "
                    "COLUMN?: rename it in the file"
                )
            if column in (*self.labels, self.client, *self.ignore):
                raise ValueError(
                    f"data.codes has the column {column!r}, which is a label, the client's or left "
                    "out: leave it out there"
                )
        return self

    @model_validator(mode="after")
    def _needed_is_not_ignored(self) -> Self:
        if not self.labels or len(set(self.labels)) < len(self.labels):
            raise ValueError(f"data.label is {self.label!r}: expected columns, each once")
        columns = [("label", column) for column in self.labels]
        for key, column in (*columns, ("client", self.client)):
            if column in self.ignore:
                raise ValueError(
                    f"data.ignore names {column!r}, which is data.{key}: leave it out there"
                )
        return self

    @model_validator(mode="after")
    def _range_ascends(self) -> Self:
        if self.range is not None and not self.range[0] < self.range[1]:
            low, high = self.range
            raise ValueError(
                f"data.range is [{low:g}, {high:g}]: expected the lower bound first, then another"
            )
        if self.range is not None and self.window is not None:
            raise ValueError(
                "data.range and data.window both say what becomes 0 and 1: leave out one"
            )
        if self.range is not None and self.limits:
            raise ValueError("data.range and data.limits both scale inputs: leave out one of them")
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns of labels."""
        return (self.label,) if isinstance(self.label, str) else self.label


Format = Literal["npz", "csv", "text"]
"""The forms of a party's own data."""


class PublicData(Frozen):
    """The proxy set: unlabelled inputs that every party holds."""

    source: str = "held-out"
    """`"held-out"` from the training set before it is split, or another set's name or path."""
    size: int = Field(default=1000, ge=1)
    """How many samples."""
    test: bool = Field(default=False, exclude_if=absent)
    """Whether all models are tested on the test set of `source`, where that is another domain: the
    one that the student is for."""

    @model_validator(mode="after")
    def _tests_another_domain(self) -> Self:
        if self.test and self.source == "held-out":
            raise ValueError(
                "data.public.test says that models are tested on the test set of another data set, "
                "and data.public.source is 'held-out': name that data set, or leave test out"
            )
        return self
