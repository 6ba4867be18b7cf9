"""A distillation made ready: everything that it names is built and checked before anything runs."""

from dataclasses import dataclass

from torch import nn

from fedkd import data, models, rng
from fedkd.config import Distillation, Frozen, Teacher
from fedkd.data.types import Dataset
from fedkd.learning import terms, ways
from fedkd.learning.ways import Way
from fedkd.models.layers import dissect


@dataclass(frozen=True)
class Prepared:
    """A distillation ready to run.

    Attributes:
        distillation: complete: every parameter and every layer said.
        data: training and test samples.
        way: how the student learns.
        params: the way's parameters.
        teachers: fresh, in the configuration's order.
    """

    distillation: Distillation
    data: Dataset
    way: Way
    params: Frozen
    teachers: tuple[nn.Module, ...]


def prepare(distillation: Distillation) -> Prepared:
    """Build and check all that a distillation names.

    Raises:
        ConfigError: an unknown way, form, model, layer or parameter, or parts that do not fit.
        DataError: a data set that is missing, corrupt or does not fit.
    """
    way, params, distillation = ways.resolve(distillation)
    dataset = data.load(distillation.data, seed=distillation.seed)
    teachers = tuple(
        _teacher(each, number, distillation.seed, dataset)
        for number, each in enumerate(distillation.teachers)
    )
    if distillation.knowledge:
        student = models.build(
            distillation.student.model,
            shape=dataset.shape,
            classes=dataset.classes,
            generator=rng.stream(distillation.seed, purpose="trial"),
        )
        anatomies = (dissect(model, dataset.shape) for model in (student, teachers[0]))
        knowledge = terms.resolve(distillation.knowledge, *anatomies)
        distillation = distillation.model_copy(update={"knowledge": knowledge})
    return Prepared(distillation, dataset, way, params, teachers)


def _teacher(teacher: Teacher, number: int, seed: int, dataset: Dataset) -> nn.Module:
    return models.build(
        teacher.model,
        shape=dataset.shape,
        classes=dataset.classes,
        generator=rng.stream(seed, purpose="teacher model", client=number),
    )
