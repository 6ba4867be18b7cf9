"""What a run's student says of texts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedkd.data.readers.tables import files
from fedkd.data.texts.tokenizer import Tokenizer
from fedkd.errors import UsageError
from fedkd.jobs.said import SAID, Asked, Prediction, Text
from fedkd.runs import student
from fedkd.runs.student import FinishedStudent
from fedkd.tasks import WRITTEN


def predict(
    run: Path,
    texts: Sequence[Text],
    *,
    cut: bool = False,
    among: Path | None = None,
    most: int | None = None,
) -> list[Prediction]:
    """Ask a finished run's student.

    Args:
        run: a finished run's folder.
        texts: at least one; all of them pairs, or none. Of a retrieval questions; of a language
            model beginnings.
        cut: whether a text that is longer than those that the student learned from is cut.
        among: of a retrieval a table of texts, such as a .txt with one a line, among which each
            question's answer is looked for.
        most: of a student that writes the most tokens of a text that it adds; at least 1.

    Raises:
        UsageError: the student takes no texts, or pairs of them and this is none, its answer is
            none that can be said, a text is too long, or it asks for something else.
        DataError: the table cannot be read.
        RunFolderError: it is no finished run.
    """
    finished = student.load(run)
    if finished.tokenizer is None:
        raise UsageError(
            f"run folder {str(run)!r} has a student of records of shape {finished.shape}, no "
            "texts: write it for other programs by 'fedkd export'"
        )
    _check_asked(finished, texts, among, most)
    asked = Asked(
        task=finished.task,
        model=finished.model,
        tokenizer=finished.tokenizer,
        texts=texts,
        encodings=_encoded(finished, finished.tokenizer, texts, cut=cut),
        among={} if among is None else _candidates(finished, finished.tokenizer, among, cut=cut),
        most=most,
    )
    return SAID[finished.task.targets](asked)


def _check_asked(
    finished: FinishedStudent, texts: Sequence[Text], among: Path | None, most: int | None
) -> None:
    """Refuse what the student was not taught."""
    task, columns = finished.task, finished.columns
    finds = task.targets == "identities"
    if task.targets not in SAID:
        raise UsageError(
            f"task {task.name!r} answers what cannot be said in a line: 'fedkd predict' is for "
            f"targets that are {', '.join(SAID)}"
        )
    if finds and among is None:
        raise UsageError(
            f"task {task.name!r} says which of some texts belongs to another: name a file of them, "
            "a text a line, --among FILE"
        )
    if among is not None and not finds:
        raise UsageError(
            f"--among {str(among)!r} is for a student of retrieval, and this one's task is "
            f"{task.name!r}: leave it out"
        )
    if most is not None and task.targets not in WRITTEN:
        raise UsageError(
            f"--most {most} is for a student that writes, and this one's task is {task.name!r}: "
            "leave it out"
        )
    alone = len(columns) == 1 or finds
    if {1 if isinstance(text, str) else 2 for text in texts} != {1 if alone else 2}:
        raise UsageError(
            f"the student learned from {' and '.join(map(repr, columns))}: "
            + ("leave out --second" if alone else "name --second once for each --text")
        )


def _encoded(
    finished: FinishedStudent, tokenizer: Tokenizer, texts: Sequence[Text], *, cut: bool
) -> list[Any]:
    """Texts as the library's encodings, none longer than the student takes."""
    task, words = finished.task, finished.task.targets == "tags"
    # What is written of a text stands behind it.
    longest = task.inputs[-1] - (task.answer[0] if task.targets == "tokens" else 0)
    asked: Sequence[Any] = [str(text).split() for text in texts] if words else texts
    encodings = tokenizer.encode(asked, length=longest, is_pretokenized=words)
    for text, encoding in zip(texts, encodings, strict=True):
        if encoding.overflowing and not cut:
            raise UsageError(
                f"the text {str(text)[:40]!r}... has more tokens than the {longest} that the "
                "student takes: shorten it, or allow it to be cut, --cut"
            )
    return encodings


def _candidates(
    finished: FinishedStudent, tokenizer: Tokenizer, file: Path, *, cut: bool
) -> Mapping[str, Any]:
    """The texts of a file, each once, and their encodings."""
    answers = finished.columns[1]
    texts = list(dict.fromkeys(files.read(file, [answers]).column(answers)))
    return dict(zip(texts, _encoded(finished, tokenizer, texts, cut=cut), strict=True))
