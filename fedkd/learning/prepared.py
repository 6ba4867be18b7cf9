"""A distillation made ready: everything that it names is built and checked before anything runs."""

from dataclasses import dataclass, replace

from torch import nn

from fedkd import data, models, rng
from fedkd.config import Distillation, Frozen, Teacher
from fedkd.data.types import Dataset
from fedkd.learning import terms, ways
from fedkd.learning.lesson import Shares
from fedkd.learning.ways import Way
from fedkd.models.layers import dissect


@dataclass(frozen=True)
class Prepared:
    """A distillation ready to run.

    Attributes:
        distillation: complete: every parameter and every layer said.
        shares: who has what of the data set.
        way: how the student learns.
        params: the way's parameters.
        teachers: fresh, in the configuration's order.
    """

    distillation: Distillation
    shares: Shares
    way: Way
    params: Frozen
    teachers: tuple[nn.Module, ...]

    @property
    def data(self) -> Dataset:
        """What the student has of the data set."""
        return self.shares.student

    def student(self, teachers: tuple[nn.Module, ...]) -> nn.Module:
        """A fresh student, made ready for the way; the same at every call.

        Args:
            teachers: as `teachers`, perhaps trained since.

        Raises:
            ConfigError: model, teachers and way do not fit.
        """
        seed, shape = self.distillation.seed, self.data.shape
        fresh = models.build(
            self.distillation.student.model,
            shape=shape,
            classes=self.data.classes,
            generator=rng.stream(seed, purpose="student model"),
        )
        if self.way.remake is None:
            return fresh
        draws = rng.stream(seed, purpose="student remade")
        return self.way.remake(fresh, teachers, self.params, shape, draws)


def prepare(distillation: Distillation) -> Prepared:
    """Build and check all that a distillation names.

    Raises:
        ConfigError: an unknown way, form, model, layer or parameter, or parts that do not fit.
        DataError: a data set that is missing, corrupt or does not fit.
    """
    way, params, distillation = ways.resolve(distillation)
    dataset = data.load(distillation.data, seed=distillation.seed)
    count = len(distillation.teachers)
    shares = Shares(dataset, dataset, (dataset,) * count)
    if way.share is not None:
        draws = rng.stream(distillation.seed, purpose="shares")
        shares = way.share(dataset, count, params, draws)
    teachers = tuple(
        _teacher(each, number, distillation.seed, shares.teachers[number])
        for number, each in enumerate(distillation.teachers)
    )
    ready = Prepared(distillation, shares, way, params, teachers)
    student = ready.student(teachers)
    if not distillation.knowledge:
        return ready
    anatomies = (dissect(model, shares.student.shape) for model in (student, teachers[0]))
    knowledge = terms.resolve(distillation.knowledge, *anatomies)
    complete = distillation.model_copy(update={"knowledge": knowledge})
    return replace(ready, distillation=complete)


def _teacher(teacher: Teacher, number: int, seed: int, dataset: Dataset) -> nn.Module:
    return models.build(
        teacher.model,
        shape=dataset.shape,
        classes=dataset.classes,
        generator=rng.stream(seed, purpose="teacher model", client=number),
    )
