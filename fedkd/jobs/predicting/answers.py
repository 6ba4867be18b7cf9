"""What a model answers as what is said of it, by the targets of its task."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fedkd.jobs.predicting.prediction import Answer, FoundBox, FoundMask, FoundPoint, ranked
from fedkd.knowledge.geometry import unit
from fedkd.tasks import Targets, Task
from fedkd.tasks.boxes import grid
from fedkd.tasks.likelihoods.multinomial import unseen

_LIKELY, _SURE = 0.5, 0.3
"""The probability above which a label is one, and a box, as `centre_point.decide` has it."""
_ITEMS = 10

Said = tuple[Answer, Mapping[str, float]]
"""An answer and its scores, as `Prediction` has them."""


def classes(task: Task, answer: Tensor) -> Said:
    """Logits (C,) as the likeliest class, and how likely each is."""
    scores = ranked(dict(zip(task.names, answer.softmax(dim=-1).tolist(), strict=True)))
    return next(iter(scores)), scores


def labels(task: Task, answer: Tensor) -> Said:
    """Logits (L,) as the labels that are likelier than not, in their order."""
    scores = dict(zip(task.names, answer.sigmoid().tolist(), strict=True))
    found = tuple(name for name, share in scores.items() if share > _LIKELY)
    return found, ranked(scores)


def numbers(task: Task, answer: Tensor) -> Said:
    """(D,) as numbers in their own units."""
    decided = task.likelihood.decide(answer[None])[0]
    return dict(zip(task.names, decided.tolist(), strict=True)), {}


def _mask(task: Task, answer: Tensor) -> Said:
    return of_mask(task, answer.argmax(dim=-1))


def of_mask(task: Task, found: Tensor) -> Said:
    """Classes (H, W), and the share of each."""
    shares = torch.bincount(found.flatten(), minlength=len(task.names)) / found.numel()
    scores = ranked(dict(zip(task.names, shares.tolist(), strict=True)))
    return FoundMask(found.numpy(), task.names), scores


def _boxes(task: Task, answer: Tensor) -> Said:
    found = grid.found(answer[None], stride=task.inputs[1] // task.answer[0])[0]
    sure = found[found[:, 5].sigmoid() > _SURE]
    names, scores = map(int, sure[:, 0].tolist()), sure[:, 5].sigmoid().tolist()
    corners = sure[:, 1:5].tolist()
    return tuple(
        FoundBox(task.names[kind], left, top, right, bottom, score)
        for kind, (left, top, right, bottom), score in zip(names, corners, scores, strict=True)
    ), {}


def _points(task: Task, answer: Tensor) -> Said:
    places = task.likelihood.decide(answer[None])[0, :, :2].tolist()
    found = {name: FoundPoint(*place) for name, place in zip(task.names, places, strict=True)}
    return found, {}


def _items(task: Task, answer: Tensor) -> Said:
    likely = torch.where(unseen(answer), answer, -torch.inf).softmax(dim=-1)
    most = likely.topk(min(_ITEMS, int((likely > 0).sum())))
    places, shares = most.indices.tolist(), most.values.tolist()
    scores = {task.names[place]: share for place, share in zip(places, shares, strict=True)}
    return tuple(scores), scores


def _vector(_task: Task, answer: Tensor) -> Said:
    return unit(answer, dim=-1).numpy(), {}


SAID: Mapping[Targets, Callable[[Task, Tensor], Said]] = {
    "binary": labels,
    "boxes": _boxes,
    "classes": classes,
    "identities": _vector,
    "items": _items,
    "masks": _mask,
    "numbers": numbers,
    "points": _points,
}
"""How the answer to a record that is no text is said, by targets."""
