"""From what a file holds to a whole experiment: pure guesses, each with its reason."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedkd.data.looking import Guess, Looked, Wished
from fedkd.errors import ConfigError

_IMAGES = ("segmentation", "detection", "keypoints")
_FEW, _MORE = 2_000, 20_000
"""Records from which on five and ten clients share them, where the data names none."""
_SMALL, _LARGE = 12, 64
"""Pixels of an image's shorter side from which on it is convolved, and of its longer side above
which its maps are averaged."""
_HELD, _PART = 2_000, 5
"""The most records of a proxy set, and of how many records one goes into it."""


def plan(looked: Looked, wished: Wished, public_records: int = 0) -> tuple[Guess, ...]:
    """Every line of an experiment on this data.

    Args:
        looked: what the data holds; nothing is missing.
        wished: what is known already, the files beside the data among it.
        public_records: how many records `wished.public` has.

    Raises:
        ConfigError: something that no guess can stand for is missing.
    """
    guessed = looked.guessed
    task = guessed["task.name"]
    lines = [
        Guess("name", _name(looked.path), "the run goes into runs/NAME"),
        Guess("seed", 0, "every draw follows from it"),
        Guess("rounds", 5),
        *[guess for guess in looked.guesses if guess.key.startswith("task.")],
        *_limits(looked, task),
        *[Guess("data.name", looked.path)] * ("data.clients" not in guessed),
        *[guess for guess in looked.guesses if guess.key.startswith("data.")],
    ]
    if "data.text.column" in guessed:
        lines += _text(task, wished)
    lines += [*_public(looked, wished, public_records), *_partition(looked, task)]
    teachers, student, why = models(looked, task)
    lines.append(Guess("clients.models", teachers, why))
    training = _training(looked, task)
    lines += [Guess(f"clients.training.{key}", value) for key, value in training.items()]
    lines.append(Guess("student.model", student, "the one model that comes out"))
    method, why = _method(task)
    lines.append(Guess("method.name", method, why))
    if method != "fedavg":
        taught = {**training, "epochs": 10}
        lines += [Guess(f"method.student.{key}", value) for key, value in taught.items()]
    return tuple(lines)


def _training(looked: Looked, task: str) -> dict[str, Any]:
    """How models learn: with more and longer steps where records are few, and models small."""
    few, text = looked.records < _FEW, "data.text.column" in looked.guessed
    rate = 0.01 if task == "retrieval" or (few and looked.columns and not text) else 0.003
    batch = 16 if few else 32
    return {"epochs": 5, "batch_size": batch, "optimiser": "adam", "learning_rate": rate}


def models(looked: Looked, task: str) -> tuple[list[Any], Any, str]:
    """The clients' models, the student, and why they suit."""
    of_task = {
        "segmentation": (
            {"name": "unet", "width": 8, "levels": 2, "blocks": 1},
            "of dense answers",
        ),
        "detection": ({"name": "centre-point", "widths": [16, 24, 32]}, "of boxes on a grid"),
        "keypoints": ({"name": "hourglass", "stages": 1, "width": 16}, "of heatmaps"),
        "recommendation": ({"name": "mult-dae", "hidden": [32]}, "a recommender"),
        "retrieval": ("bag", "of texts: the mean of what its words say"),
        "language-model": ("causal-transformer", "writes texts"),
        "sequence-to-sequence": ("gru-seq2seq", "reads one text and writes another"),
    }
    if task in of_task:
        model, why = of_task[task]
        return [model], model, why
    if "data.text.column" in looked.guessed:
        return ["bilstm"], "bilstm", "reads texts in both directions"
    if sum(array.name.startswith("x_train.") for array in looked.arrays) > 1:
        model = {"name": "fusion", "width": 64}
        return [model], model, "an encoder for each of several columns"
    sides = _sides(looked)
    if sides is None or min(sides) < _SMALL:
        model = {"name": "mlp", "hidden": [64]}
        return [model], model, "small, for rows of numbers"
    if max(sides) > _LARGE:
        return ["resnet8"], "resnet8", "its size does not grow with that of the images"
    return ["lenet5", "dense-cnn"], "dense-cnn", "unlike models may teach one student"


def _name(path: str) -> str:
    """What an experiment on a file is called: what a folder can be called too."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(path).stem).strip("-._")
    return plain[:80] or "mine"


def _sides(looked: Looked) -> tuple[int, int] | None:
    """Height and width of what are images; None of all else."""
    if looked.pictures is not None:
        if (tile := looked.guessed.get("data.tile")) is not None:
            return tile, tile
        height, width, _ = looked.pictures.sizes[0][0]
        return height, width
    x = next((array for array in looked.arrays if array.name == "x_train"), None)
    if x is None or len(x.shape) not in (3, 4):
        return None
    told = len(x.shape) == 3 or "data.layout" in looked.guessed
    height, width = x.shape[-2:] if told or x.shape[1] in (1, 3, 4) else x.shape[1:3]
    return height, width


def _limits(looked: Looked, task: str) -> list[Guess]:
    """What numbers become -1 and 1: powers of ten, so that next to nothing is told of the rows."""
    if task != "regression":
        return []
    label = looked.guessed.get("data.label", ())
    labels = {label} if isinstance(label, str) else set(label)
    found: Sequence[Any] = [each for each in looked.columns if each.name in labels]
    found = found or [array for array in looked.arrays if array.name == "y_train"]
    ends = [(each.low, each.high) for each in found if each.low is not None]
    limits = [_rounded(low, high) for low, high in ends]
    if all(limit == [-1, 1] for limit in limits):
        return []
    return [
        Guess(
            "task.limits",
            limits[0] if len(limits) == 1 else limits,
            "become -1 and 1: powers of ten around your numbers; put in what is publicly known of "
            "them",
            private=True,
        )
    ]


def _rounded(low: float, high: float) -> list[int]:
    """The powers of ten around numbers, from 1 on."""
    most = max(abs(low), abs(high), 1.0)
    bound = 10 ** math.ceil(math.log10(most))
    bound = bound * 10 if bound < most else bound
    return [0 if low >= 0 and bound > 1 else -bound, bound]


def _text(task: str, wished: Wished) -> list[Guess]:
    if wished.public is None:
        raise ConfigError(
            "public texts are missing: a vocabulary tells what it was learned from, so it is never "
            "learned from the clients' texts: name a file of texts that all may see by --public"
        )
    vocabulary = 600 if task == "language-model" else 2000
    return [
        Guess("data.text.texts", wished.public, "a vocabulary is learned from public texts alone"),
        Guess("data.text.vocabulary", vocabulary, "tokens at most"),
        Guess("data.text.length", 128 if task == "span" else 48, "tokens of a text"),
        Guess("data.text.cut", value=True, why="what is longer is cut"),
    ]


def _public(looked: Looked, wished: Wished, records: int) -> list[Guess]:
    """The proxy set, and whether columns are scaled by it."""
    task, text = looked.guessed["task.name"], "data.text.column" in looked.guessed
    if _method(task)[0] == "fedavg":
        return []
    held = wished.public is None
    size = looked.records // _PART if held else records if text else 7 * records // 10
    found = [
        Guess(
            "data.public.source",
            "held-out" if held else wished.public,
            "drawn from the training records, labels dropped: fine to try a method; in a "
            "deployment it is a file that all parties hold"
            if held
            else "all parties may see it",
        ),
        Guess("data.public.size", _plain(size), "records on which teachers answer"),
    ]
    rows = bool(looked.columns) and not text and task != "recommendation"
    x = next((array for array in looked.arrays if array.name == "x_train"), None)
    rows = rows or (x is not None and len(x.shape) == 2 and x.dtype != "uint8")
    if rows and "data.scale" not in looked.guessed:
        why = "columns by the proxy set's mean and spread, never by private rows"
        found.insert(0, Guess("data.scale", "public", why))
    return found


def _plain(size: int) -> int:
    """A size of one digit, at most that: the number of records is private too."""
    digits = int(10 ** (len(str(max(1, size))) - 1))
    return max(1, min(size // digits * digits, _HELD))


def _partition(looked: Looked, task: str) -> list[Guess]:
    """Who holds what: as the data says, or shares that are drawn."""
    owned = any(array.name == "client_train" for array in looked.arrays)
    named = {"data.client", "data.clients"} & looked.guessed.keys()
    if named or owned or (looked.pictures and looked.pictures.clients):
        return [Guess("data.partition.scheme", "natural", "the data says whose a record is")]
    records = looked.records
    count = 3 if records < _FEW else 5 if records < _MORE else 10
    clients = Guess("clients.count", count, "the data names no clients: records are dealt to these")
    if task == "classification" and records >= _FEW:
        return [
            Guess("data.partition.scheme", "dirichlet", "clients with unlike shares of each class"),
            Guess("data.partition.alpha", 0.5, "the lower, the more unlike"),
            clients,
        ]
    return [Guess("data.partition.scheme", "iid", "equal random shares"), clients]


def _method(task: str) -> tuple[str, str]:
    if task == "sequence-to-sequence":
        return "fedavg", "clients send their models, which are equal"
    if task == "language-model":
        return "feddf", "clients send their models; the student learns from them on the proxy set"
    return "fedmd", "clients send their answers on the proxy set; models may differ"
