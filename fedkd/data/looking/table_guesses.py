"""Which column of a table is what: pure guesses from what `columns` found.

Reasons go into a file that other parties may see, so they tell names and kinds of columns, and no
count, value or range; a value that does so is marked as private.
"""

from collections.abc import Sequence

from fedkd.data.looking.described import NOTHING, Column, Guess, Wished
from fedkd.data.readers.tables.columns import OTHERS, as_code
from fedkd.errors import ConfigError, DataError
from fedkd.names import choices

_LABELS = (
    "label", "labels", "target", "class", "y", "outcome", "diagnosis", "disease", "species",
    "category", "response", "progression", "price", "quality", "grade", "status",
)  # fmt: skip
"""What a column of labels is mostly called, the likeliest first."""
_CLIENTS = (
    "client", "hospital", "site", "clinic", "center", "centre", "institution", "bank", "branch",
    "shop", "store", "school", "organisation", "organization", "company", "party", "silo",
    "project",
)  # fmt: skip
"""What a column is called that says whose a row is, the likeliest first."""
_LANGUAGES = ("en", "fr", "de", "es", "it", "nl", "pt", "pl", "ru", "zh", "ja", "source", "target")
_FEWEST, _MOST_CLIENTS = 10, 1000
"""Rows of a client, and clients, that a natural partition is guessed for."""
_OFTEN = 10
"""Rows that have a word before it is written down as a code; all others are one."""
_CLASSES = 20
"""Different whole numbers up to which a column of labels is taken for classes."""
_UNUSED = {
    "date": "dates",
    "identifier": "a value of its own in nearly every row",
    "constant": "the same in every row",
    "empty": "no value at all",
    "text": "texts beside numbers",
    "category": "words that hardly repeat",
}


def guesses(columns: Sequence[Column], wished: Wished = NOTHING) -> tuple[Guess, ...]:
    """Which task a table is for, and which of its columns are what.

    Args:
        columns: in the table's order.
        wished: what is known already.

    Raises:
        DataError: a column that was named is not there.
        ConfigError: no column can be the label.
    """
    named = {column.name: column for column in columns}
    for label in wished.labels:
        if label not in named:
            hint = choices(label, list(named), lead="it has ")
            raise DataError(f"no column {label!r}, which is asked for as the label: {hint}")
    client = _client(columns, wished)
    decimal = [Guess("data.decimal", ",", "decimals have a comma")] * any(
        column.decimals for column in columns
    )
    test = [Guess("data.test", wished.test, "stands beside it")] * (wished.test is not None)
    found = _of_known_columns(named, wished) or _of_labels(columns, client, wished)
    return (*found, *client, *decimal, *test)


def by_files(guesses: Sequence[Guess], clients: Sequence[str]) -> tuple[Guess, ...]:
    """The same where each client has its own file, and a column that says whose is left out."""
    told = {guess.key: guess.value for guess in guesses}
    left = [*told.get("data.ignore", ()), *([told["data.client"]] if "data.client" in told else [])]
    kept = (guess for guess in guesses if guess.key not in ("data.client", "data.ignore"))
    why = next((guess.why for guess in guesses if guess.key == "data.ignore"), "")
    ignored = [Guess("data.ignore", left, why or "says whose a row is")] * bool(left)
    return (*kept, *ignored, Guess("data.clients", list(clients), "a file for each client"))


def task_of(label: Column) -> tuple[str, str]:
    """The task that asks for a column, and why it is taken for that one."""
    if label.kind != "number":
        return "classification", f"{label.name!r} holds words"
    if label.whole and label.distinct <= _CLASSES:
        return "classification", f"{label.name!r} holds few different whole numbers"
    return "regression", f"{label.name!r} holds many numbers"


def _client(columns: Sequence[Column], wished: Wished) -> list[Guess]:
    """The column that says whose a row is, by its name."""
    likely = [
        column
        for name in _CLIENTS
        for column in columns
        if column.name.lower() in (name, f"{name}_id", f"{name}id", f"{name}s")
        if column.name not in wished.labels and not column.missing
        if 2 <= column.distinct <= _MOST_CLIENTS and column.rarest >= _FEWEST
    ]
    return [Guess("data.client", each.name, "whose a row is, by its name") for each in likely[:1]]


def _of_known_columns(named: dict[str, Column], wished: Wished) -> list[Guess]:
    """Tables whose columns' names say what they are for: texts of a known form, who took what."""
    text, task = _text_columns(named, wished), wished.task
    if {"user", "item"} <= named.keys() and task in (None, "recommendation") and not wished.labels:
        return _recommendation(named, wished)
    if {"words", "tags"} <= named.keys() and task in (None, "tagging"):
        why = "has words and as many tags"
        return [*_texts("tagging", why, ("words",)), Guess("data.label", "tags", "by its name")]
    if {"question", "context", "answer"} <= named.keys() and task in (None, "span"):
        why = "has questions, and answers in contexts"
        return [
            *_texts("span", why, ("question", "context")),
            Guess("data.label", "answer", "by its name"),
        ]
    if {"question", "answer"} <= named.keys() and task in (None, "retrieval"):
        return _texts("retrieval", "has questions and their answers", ("question", "answer"))
    pair = [name for name in text if name.lower() in _LANGUAGES]
    if len(pair) == 2 and task in (None, "sequence-to-sequence"):
        why = "has texts in two languages"
        label = Guess("data.label", pair[1], "the second of two")
        return [*_texts("sequence-to-sequence", why, tuple(pair[:1])), label]
    return []


def _recommendation(named: dict[str, Column], wished: Wished) -> list[Guess]:
    if wished.items is None:
        raise ConfigError(
            "a catalogue is missing: rows say which user took which item, and which items there "
            "are has to be public: put items.txt, an item a line, beside the table"
        )
    found = [
        Guess("task.name", "recommendation", "has columns 'user' and 'item'"),
        Guess("data.interactions.items", wished.items, "the catalogue: public, an item a line"),
    ]
    if "time" in named and named["time"].kind == "number":
        found.append(Guess("data.interactions.time", "time", "the latest are held out"))
    return found


def _of_labels(columns: Sequence[Column], client: list[Guess], wished: Wished) -> list[Guess]:
    """A table of features, or of one column of texts, and a column of labels or several."""
    taken = {guess.value for guess in client}
    texts = [column.name for column in columns if column.kind == "text"]
    labels = [] if wished.task == "language-model" else _labels(columns, taken, wished)
    others = [each for each in columns if each.name not in taken | {own.name for own in labels}]
    features = [each for each in others if each.kind in ("number", "category")]
    if gaps := [each for each in labels if each.missing]:
        raise ConfigError(
            f"labels are missing: {gaps[0].name!r} has {gaps[0].missing} cells without a value; "
            "fill them in, drop these rows, or name another column by --label"
        )
    named = _label_guess(labels, wished)
    if texts and (not features or wished.task == "language-model"):
        if not labels:
            return _texts("language-model", "has texts and nothing else", tuple(texts[:1]))
        task, why = _asked(labels, wished)
        return [*_texts(task, why, tuple(texts[:1])), named]
    if not labels:
        raise ConfigError(
            "no column can be the label: all of them are texts, dates, identifiers or constant; "
            "name one by --label"
        )
    task, why = _asked(labels, wished)
    found = [Guess("task.name", task, why), named, *_rest(others, wished)]
    left = next((guess.value for guess in found if guess.key == "data.ignore"), ())
    if all(each.name in left for each in others):
        raise ConfigError(
            "columns to learn from are missing: all but the label are texts, dates, identifiers "
            "or constant"
        )
    return found


def _labels(columns: Sequence[Column], taken: set[str], wished: Wished) -> list[Column]:
    """The columns of labels: those asked for, or the likeliest one."""
    if wished.labels:
        return [each for label in wished.labels for each in columns if each.name == label]
    fit = [each for each in columns if each.kind in ("number", "category")]
    fit = [each for each in fit if each.name not in taken]
    likely = [each for name in _LABELS for each in fit if each.name.lower() == name]
    return (likely or fit[-1:])[:1]


def _label_guess(labels: Sequence[Column], wished: Wished) -> Guess:
    names = [each.name for each in labels]
    if wished.labels:
        return Guess("data.label", names if len(names) > 1 else names[0], "as asked for")
    if not names:
        return Guess("data.label", "label")
    named = names[0].lower() in _LABELS
    why = "named like one" if named else "the last column that can be one: say --label if not"
    return Guess("data.label", names[0], why)


def _asked(labels: Sequence[Column], wished: Wished) -> tuple[str, str]:
    if wished.task is not None:
        return wished.task, "as asked for"
    if len(labels) == 1:
        return task_of(labels[0])
    marks = all(each.kind == "number" and (each.low, each.high) == (0, 1) for each in labels)
    return ("multi-label" if marks else "regression"), f"{len(labels)} columns of labels"


def _rest(others: Sequence[Column], wished: Wished) -> list[Guess]:
    """What is left out of the features, which have codes, and what is done about missing cells."""
    codes = {each.name: own for each in others if (own := _codes(each))}
    left = {
        each.name: _UNUSED[each.kind]
        for each in others
        if each.kind in _UNUSED and each.name not in codes
    }
    why = "; ".join(f"{name!r}: {reason}" for name, reason in left.items())
    found = [Guess("data.ignore", list(left), why)] * bool(left)
    if codes and wished.public is not None:
        public = dict.fromkeys(codes, "public")
        found.append(Guess("data.codes", public, "words: the codes that the proxy set has"))
    elif codes:
        why = (
            "words that your rows have, rare ones aside: put in those that are publicly known to "
            "be possible"
        )
        found.append(Guess("data.codes", codes, why, private=True))
    if any(each.missing for each in others if each.name not in left):
        why = "some cells have no value: each column says where"
        found.append(Guess("data.missing", "indicate", why))
    return found


def _codes(column: Column) -> list[str]:
    """The words of a column that many rows have, in order, and one for all others; none of others.

    Not by how many rows have each, which their order would tell.
    """
    if column.kind != "category" or "=" in column.name or column.name.endswith("?"):
        return []
    often = sorted({as_code(value) for value, count in column.values if count >= _OFTEN} - {OTHERS})
    return [*often, OTHERS] if often else []


def _text_columns(named: dict[str, Column], wished: Wished) -> list[str]:
    """Columns that can be texts, for tasks between two of them."""
    kinds = ("text", "identifier", "category")
    return [n for n, each in named.items() if each.kind in kinds and n not in wished.labels]


def _texts(task: str, why: str, columns: tuple[str, ...]) -> list[Guess]:
    text = list(columns) if len(columns) > 1 else columns[0]
    return [Guess("task.name", task, why), Guess("data.text.column", text, "holds the texts")]
