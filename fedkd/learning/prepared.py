"""A distillation made ready: everything that it names is built and checked before anything runs."""

from dataclasses import dataclass, replace

from torch import nn

from fedkd import data, models, rng
from fedkd.config import Distillation, Frozen
from fedkd.data.types import Dataset
from fedkd.learning import given, protected, terms, ways
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
        teachers: in the configuration's order; fresh, or with the weights that are given.
        digests: SHA-256 of the files of given weights, in the same order.
    """

    distillation: Distillation
    shares: Shares
    way: Way
    params: Frozen
    teachers: tuple[nn.Module, ...]
    digests: tuple[str, ...] = ()

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


def prepare(distillation: Distillation, *, weights: bool = True) -> Prepared:
    """Build and check all that a distillation names.

    Args:
        distillation: what will run.
        weights: whether given weights are needed; without, teachers have the right shape only.

    Raises:
        ConfigError: an unknown way, form, model, layer or parameter, or parts that do not fit.
        DataError: a data set that is missing, corrupt or does not fit.
        BudgetError: the plan costs more than the budget that it names.
    """
    way, params, distillation = ways.resolve(distillation)
    resolved = tuple(given.resolve(each, n) for n, each in enumerate(distillation.teachers))
    distillation = distillation.model_copy(update={"teachers": resolved})
    dataset = data.load(distillation.data, seed=distillation.seed)
    count = len(distillation.teachers)
    shares = Shares(dataset, dataset, (dataset,) * count)
    if way.share is not None:
        draws = rng.stream(distillation.seed, purpose="shares")
        shares = way.share(dataset, count, params, draws)
    if way.check is not None:
        way.check(shares.student, params)
    teachers = tuple(
        models.build(
            each.model,
            shape=shares.teachers[number].shape,
            classes=dataset.classes,
            generator=rng.stream(distillation.seed, purpose="teacher model", client=number),
        )
        for number, each in enumerate(resolved)
    )
    digests = tuple(
        given.load_weights(each, model, number)
        for number, (each, model) in enumerate(zip(resolved, teachers, strict=True))
        if weights and each.weights is not None
    )
    return _complete(Prepared(distillation, shares, way, params, teachers, digests))


def _complete(ready: Prepared) -> Prepared:
    """With every layer named, and the noise that the budget needs."""
    distillation, shape = ready.distillation, ready.data.shape
    student = ready.student(ready.teachers)
    if distillation.knowledge:
        anatomies = (dissect(model, shape) for model in (student, ready.teachers[0]))
        knowledge = terms.resolve(distillation.knowledge, *anatomies)
        distillation = distillation.model_copy(update={"knowledge": knowledge})
    if distillation.privacy is not None:
        records = len(ready.data.train)
        distillation = protected.resolve(distillation, distillation.privacy, records)
        protected.check_student(distillation, student, ready.teachers[0], ready.data)
    return replace(ready, distillation=distillation)
