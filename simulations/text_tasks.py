"""The tables of texts that the configs of Table 6 name.

    FEDKD_DATA=... python simulations/text_tasks.py FOLDER

Of $FEDKD_DATA: `sentiment` (UCI, Kotzias et al. 2015: 3,000 sentences of three sites), `qa`
(chatterbot-corpus: questions and answers by topic) and `enfr` (strings of five programs, English
and French). Of each, one record in three is public. Two tables are drawn up here, for want of a
real one that may be had: spans, where a question's answer stands among two others, and tags, where
sentences of a few patterns have names of people and places.
"""

import argparse
import csv
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = Mapping[str, Any]

PEOPLE = ("Ann", "Bob Dean", "Carl", "Dora Lee", "Emil Fox", "Fay", "Gus", "Hana Ito")
PLACES = ("Bath", "New York", "Oslo", "Rome", "San Jose", "Tunis", "Ulm", "York")
PATTERNS = (
    "{PER} went to {LOC} on Monday",
    "in {LOC} it rained all day",
    "{PER} met {PER} near {LOC}",
    "yesterday {PER} was not at home",
    "the train from {LOC} to {LOC} was late",
    "nobody in {LOC} knows where {PER} is",
)


def sentiment() -> list[Row]:
    """A sentence, whether it praises, and the site where it stands."""
    return [
        {"text": " ".join(each["text"].split()), "class": each["class"], "site": site}
        for site in ("amazon", "imdb", "yelp")
        for each in _read(f"sentiment/{site}.json")
        if each["text"].strip()
    ]


def answers() -> list[Row]:
    """A question and its answer, by topic; no longer than 200 characters."""
    rows = [
        {"question": question, "answer": " ".join(answer.split()), "topic": topic}
        for topic, question, answer in _read("qa/pairs.json")
    ]
    return [row for row in rows if row["question"].strip() and 0 < len(row["answer"]) < 200]


def spans() -> list[Row]:
    """A question, three answers of its topic one after the other, and the one that is its own."""
    draw, found = np.random.default_rng(0), []
    pairs = answers()
    for row in pairs:
        others = [
            each["answer"]
            for each in pairs
            if each["topic"] == row["topic"] and row["answer"] not in each["answer"]
        ]
        if len(others) > 1:
            chosen = [others[place] for place in draw.choice(len(others), 2, replace=False)]
            parts = draw.permutation([row["answer"], *chosen])
            found.append({**row, "context": " ".join(parts)})
    return found


def translation() -> list[Row]:
    """A string of a program in English and in French, by program."""
    rows = _read("enfr/pairs.json")
    return [{"en": en, "fr": fr, "project": project} for project, en, fr in rows if len(en) < 60]


def tags(count: int = 900) -> list[Row]:
    """Words and their tags: B- and I- of a person's or a place's name, O of all else."""
    draw, found = np.random.default_rng(1), []
    for number in range(count):
        words: list[str] = []
        marks: list[str] = []
        for word in str(draw.choice(PATTERNS)).split():
            kind = word.strip("{}")
            names = {"PER": PEOPLE, "LOC": PLACES}.get(kind)
            parts = [word] if names is None else str(draw.choice(names)).split()
            words += parts
            marks += ["O"] if names is None else [f"B-{kind}"] + [f"I-{kind}"] * (len(parts) - 1)
        found.append({"words": " ".join(words), "tags": " ".join(marks), "site": number % 3})
    return found


TABLES = {
    "answers": (answers, ("question", "answer")),
    "sentiment": (sentiment, ("text",)),
    "spans": (spans, ("question", "context")),
    "tags": (tags, ("words",)),
    "translation": (translation, ("en", "fr")),
}
"""By name: the records, and what is public of those that are."""


def write(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """NAME.csv, and of every third record what is public, NAME_public.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    public = TABLES[name][1]
    _write(folder / f"{name}.csv", [row for n, row in enumerate(rows) if n % 3])
    _write(folder / f"{name}_public.csv", [{key: row[key] for key in public} for row in rows[::3]])


def _read(name: str) -> list[Any]:
    path = Path(os.environ["FEDKD_DATA"]) / name
    found: list[Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _write(path: Path, rows: Iterable[Row]) -> None:
    first, *_ = rows = list(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(first))
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Write all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for name, (read, _) in TABLES.items():
        write(folder, name, read())


if __name__ == "__main__":
    main()
