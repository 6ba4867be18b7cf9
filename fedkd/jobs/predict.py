"""What a run's student says of records, whatever its task."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fedkd.data.readers.pictures import picture as pictures
from fedkd.data.readers.tables import files as tables
from fedkd.data.texts.tokenizer import Tokenizer
from fedkd.errors import UsageError
from fedkd.jobs.predicting import answers, inputs, texts
from fedkd.jobs.predicting.prediction import Prediction, Text
from fedkd.learning import evaluate
from fedkd.runs import student
from fedkd.runs.student import FinishedStudent
from fedkd.tasks import WRITTEN, Task


def predict(
    run: Path | FinishedStudent,
    given: Any,
    *,
    cut: bool = False,
    among: Path | None = None,
    most: int | None = None,
) -> list[Prediction]:
    """Ask a finished run's student. Nothing but the run's folder is read.

    Args:
        run: a finished run's folder, or its student.
        given: one record or several, as the data of the run had them: see
            `fedkd.jobs.predicting.inputs.read`. Of texts at least one; all of them pairs, or none,
            or a file that is a table of them. Of a retrieval questions; of a language model
            beginnings.
        cut: whether a text that is longer than those that the student learned from is cut.
        among: of a retrieval a table of texts, such as a .txt with one a line, among which each
            question's answer is looked for.
        most: of a student that writes the most tokens of a text that it adds; at least 1.

    Returns:
        A prediction for each record.

    Raises:
        UsageError: the student takes something else, its answer is none that can be said, a text is
            too long, or it asks for something else.
        DataError: a file cannot be read, or a value does not fit.
        RunFolderError: it is no finished run.
    """
    finished = run if isinstance(run, FinishedStudent) else student.load(run)
    if finished.tokenizer is not None:
        return _of_texts(finished, finished.tokenizer, given, cut=cut, among=among, most=most)
    for name, value in (("--among", among), ("--most", most), ("--cut", cut)):
        if value:
            raise UsageError(
                f"{name} is for a student of texts, and this one takes records of shape "
                f"{finished.shape}: leave it out"
            )
    _check_said(finished.task, answers.SAID)
    cuts = finished.source.tile is not None and finished.task.targets == "masks"
    if cuts and (files := _pictures(given)):
        return [each for file in files for each in _of_tiles(finished, file)]
    asked = inputs.read(finished, given)
    found = evaluate.answers(finished.model, asked.x)
    say = answers.SAID[finished.task.targets]
    return [
        Prediction(name, *say(finished.task, answer))
        for name, answer in zip(asked.names, found, strict=True)
    ]


def _check_said(task: Task, said: Mapping[Any, object]) -> None:
    if task.targets not in said:
        raise UsageError(
            f"task {task.name!r} answers what cannot be said: predictions are of targets that are "
            f"{', '.join(said)}"
        )


def _pictures(given: Any) -> list[Path]:
    """The pictures that are meant, if nothing else is."""
    every = [given] if isinstance(given, str | Path) else given
    if not isinstance(every, Sequence) or not all(isinstance(each, str | Path) for each in every):
        return []
    paths = [Path(each).expanduser() for each in every]
    files = [file for path in paths for file in (pictures.files(path) if path.is_dir() else [path])]
    return files if all(map(pictures.is_picture, files)) else []


def _of_tiles(finished: FinishedStudent, file: Path) -> Iterator[Prediction]:
    """A picture of any size, cut into the squares that the student takes, and its mask whole."""
    side = finished.shape[-1]
    for read in inputs.picture(finished, file):
        height, width = read.shape[:2]
        parts = list(pictures.windows(height, width, side))
        squares = torch.stack([torch.from_numpy(part.of(read, beyond=0.0)) for part in parts])
        x = inputs.scaled(finished, squares.movedim(-1, 1).contiguous())
        found = evaluate.answers(finished.model, x).argmax(dim=-1)
        classes = torch.empty(max(height, side), max(width, side), dtype=torch.int64)
        for part, mask in reversed(list(zip(parts, found, strict=True))):  # the first one goes last
            classes[part.top : part.top + side, part.left : part.left + side] = mask
        yield Prediction(str(file), *answers.of_mask(finished.task, classes[:height, :width]))


def _of_texts(
    finished: FinishedStudent,
    tokenizer: Tokenizer,
    given: Any,
    *,
    cut: bool,
    among: Path | None,
    most: int | None,
) -> list[Prediction]:
    told = _texts(finished, given)
    _check_asked(finished, told, among, most)
    asked = texts.Asked(
        task=finished.task,
        model=finished.model,
        tokenizer=tokenizer,
        texts=told,
        encodings=_encoded(finished, tokenizer, told, cut=cut),
        among={} if among is None else _candidates(finished, tokenizer, among, cut=cut),
        most=most,
    )
    return texts.SAID[finished.task.targets](asked)


def _texts(finished: FinishedStudent, given: Any) -> Sequence[Text]:
    """Texts or pairs: one, several, or those of files."""
    files = [given] if isinstance(given, Path) else given
    if isinstance(files, list) and files and all(isinstance(each, Path) for each in files):
        return [text for file in files for text in _of_table(finished, file.expanduser())]
    one = isinstance(given, str) or (isinstance(given, tuple) and len(given) == 2)
    every = [given] if one else list(given)
    for text in every:
        pair = isinstance(text, tuple) and len(text) == 2 and all(isinstance(t, str) for t in text)
        if not (isinstance(text, str) or pair):
            raise UsageError(
                f"{text!r:.60} is no text: the student learned from "
                f"{' and '.join(map(repr, finished.columns))}; expected texts, or pairs of texts"
            )
    if not every:
        raise UsageError("no text was given to ask the student about: expected at least one")
    return every


def _of_table(finished: FinishedStudent, file: Path) -> Sequence[Text]:
    alone = finished.task.targets == "identities"
    columns = finished.columns[:1] if alone else finished.columns
    read = tables.read(file, columns)
    rows = zip(*(read.column(column) for column in columns), strict=True)
    return [row[0] if len(row) == 1 else (row[0], row[1]) for row in rows]


def _check_asked(
    finished: FinishedStudent, asked: Sequence[Text], among: Path | None, most: int | None
) -> None:
    """Refuse what the student was not taught."""
    task, columns = finished.task, finished.columns
    finds = task.targets == "identities"
    _check_said(task, texts.SAID)
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
    if {1 if isinstance(text, str) else 2 for text in asked} != {1 if alone else 2}:
        raise UsageError(
            f"the student learned from {' and '.join(map(repr, columns))}: "
            + ("leave out --second" if alone else "name --second once for each --text")
        )


def _encoded(
    finished: FinishedStudent, tokenizer: Tokenizer, told: Sequence[Text], *, cut: bool
) -> list[Any]:
    """Texts as the library's encodings, none longer than the student takes."""
    task, words = finished.task, finished.task.targets == "tags"
    # What is written of a text stands behind it.
    longest = task.inputs[-1] - (task.answer[0] if task.targets == "tokens" else 0)
    asked: Sequence[Any] = [str(text).split() for text in told] if words else told
    encodings = tokenizer.encode(asked, length=longest, is_pretokenized=words)
    for text, encoding in zip(told, encodings, strict=True):
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
    column = finished.columns[1]
    found = list(dict.fromkeys(tables.read(file, [column]).column(column)))
    return dict(zip(found, _encoded(finished, tokenizer, found, cut=cut), strict=True))
