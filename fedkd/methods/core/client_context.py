"""What a method's client part is given: one client's view of one round."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from fedkd import rng
from fedkd.clock import Clock
from fedkd.config import ModelSpec, Optimisation
from fedkd.data.types import Samples
from fedkd.errors import UnpaidError
from fedkd.exchange.messages import (
    PostProcessing,
    Provenance,
    Release,
    Tensors,
    Upload,
    Value,
    group,
    prefixed,
    values,
)
from fedkd.knowledge.moments import Moments
from fedkd.learning import alignment, evaluate, loop, offline, optim, supervised
from fedkd.learning.closed_form import Basis
from fedkd.learning.forms.terms import Terms
from fedkd.learning.offline import Loss
from fedkd.methods.core import learners, sums, votes
from fedkd.methods.core.setting import Count, Setting
from fedkd.methods.core.sums import RELEASED
from fedkd.privacy import mechanisms
from fedkd.privacy.allowance import Allowance
from fedkd.privacy.events import Protected, Unprotected
from fedkd.privacy.source import GENERATOR, NoiseSource
from fedkd.rows import Rows
from fedkd.tasks import Likelihood


@dataclass
class ClientContext:
    """One client in one round."""

    setting: Setting
    round: int
    client: int
    _data: Samples
    state: dict[str, Tensor]
    """The client's own, kept from round to round on its own side."""
    clock: Clock
    allowance: Allowance | None = None
    """What may be done with the private data in this round; None where nothing is protected."""
    earlier: Samples | None = None
    """The private records of earlier stages; None where there are none, or they are protected."""
    personal: nn.Module | None = None
    """What the client would use itself, where a method has no teacher that stands alone."""
    learned_by: Protected | None = None
    """What the teacher comes of, where it is not DP-SGD: see `votes.elected`."""
    keeps_teacher: bool = True
    """Whether a later round goes on from this one's teacher: not if all start from the server's."""

    @property
    def data(self) -> Samples:
        """The private data. Nothing of it leaves except in a `Value`.

        Raises:
            UnpaidError: it is protected, so that only what is paid for may touch it.
        """
        if self.allowance is not None:
            raise UnpaidError(
                "private data is protected by privacy.unit = 'record': a method reaches it through "
                "ctx.train, ctx.moments, ctx.elected, ctx.example_count and ctx.class_counts alone"
            )
        return self._data

    @cached_property
    def training(self) -> Optimisation:
        """How the teacher is to be trained; a method may set another way, but not under DP."""
        return self.setting.experiment.clients.training

    @property
    def device(self) -> torch.device:
        """Where this client's models learn and answer."""
        return self.setting.device(self.client)

    def on_device(self, *models: nn.Module) -> AbstractContextManager[None]:
        """Have models there as long as the context lasts; what they learn comes back with them."""
        return self.setting.visiting(self.device, *models)

    @cached_property
    def teacher(self) -> nn.Module:
        """The client's private model: as it was after its last round, or fresh; on the CPU."""
        saved = group("teacher", self.state)
        return self.setting.models.of(saved, self.spec, purpose="teacher", client=self.client)

    @property
    def has_teacher(self) -> bool:
        """Whether this round touched the teacher."""
        return "teacher" in self.__dict__

    @property
    def own_model(self) -> nn.Module | None:
        """What is scored as the client's: its teacher, or what the method has in its place."""
        return self.teacher if self.has_teacher else self.personal

    @property
    def spec(self) -> ModelSpec:
        """The client's model by name."""
        return self.setting.experiment.client_model(self.client)

    def keep(self, prefix: str, tensors: Tensors) -> None:
        """Keep tensors under `prefix` until the client's next round."""
        self.state.update(prefixed(prefix, tensors))

    def rng(self, purpose: str) -> torch.Generator:
        """This client's stream in this round for `purpose`."""
        seed = self.setting.experiment.seed
        return rng.stream(seed, purpose=purpose, round=self.round, client=self.client)

    def train(
        self,
        *,
        anchor: Tensors | None = None,
        proximal: float = 0.0,
        offset: Tensor | None = None,
        on_step: Callable[[], None] | None = None,
    ) -> None:
        """Train the teacher on the private data, keeping the optimiser from round to round.

        With an `anchor` the teacher starts each round from the server's model, so the optimiser
        starts afresh as well. An `offset` (C,) is added to the logits of classes while training;
        under DP it must come of what was paid for, such as `class_counts`. `on_step`, called before
        each step, may change gradients, under DP noisy ones, by what is public or was paid for.

        Raises:
            ValueError: there is an offset, and the task is not one of classes.
        """
        supervised.require_classes(offset, self.setting.task.likelihood)
        epochs, public = self.training.epochs, self.setting.public
        align = self.setting.experiment.clients.align
        beside = alignment.beside(align, public, self.training.batch_size, self.rng("alignment"))
        with self.on_device(self.teacher), self.clock.phase("train", epochs) as advance:
            optimiser = optim.build(self.teacher.parameters(), self.training)
            if anchor is None and (saved := group("optimiser", self.state)):
                optim.unpack(optimiser, saved)
            if on_step is not None:
                optimiser.register_step_pre_hook(lambda *_: on_step())
            learn = learners.from_labels(self.setting, self.allowance, self.rng("batches"), beside)
            learn(
                self.teacher,
                self._data,
                self.training,
                optimiser=optimiser,
                anchor=anchor,
                proximal=proximal,
                offset=offset,
                on_epoch=lambda *_: advance(),
            )
            alignment.after(align, self.teacher, public)
        if anchor is None:
            self.keep("optimiser", optim.pack(optimiser))

    def train_beside(
        self, other: nn.Module, terms: Terms, likelihood: Likelihood, samples: Samples | None = None
    ) -> None:
        """As `train`, from labels and what `other`, under DP paid for, passes on beside them."""
        with (
            self.on_device(self.teacher, other),
            self.clock.phase("train", self.training.epochs) as advance,
        ):
            learn = learners.from_teacher(self.setting, self.allowance, self.rng("batches"))
            learn(
                self.teacher,
                other,
                terms.to(self.device),
                self._data if samples is None else samples,
                self.training,
                likelihood=likelihood,
                on_epoch=lambda *_: advance(),
            )

    def fit(
        self, model: nn.Module, rows: Sequence[Rows], loss: Callable[..., Tensor]
    ) -> list[float]:
        """Fit `model` by a loss of the method's own, as in `loop.fit`, as teachers are trained.

        The second of the rows are targets. The model and each batch are on the device meanwhile; so
        must be what else the loss uses.
        Rows of private data come from `ctx.data`, so it runs without differential privacy alone.
        The optimiser starts afresh.
        """
        with self.on_device(model), self.clock.phase("train", self.training.epochs) as advance:
            return loop.fit(
                model,
                rows,
                loss,
                self.training,
                self.rng("batches"),
                moved=self.setting.task.likelihood.moved,
                on_epoch=lambda *_: advance(),
            )

    def distil(self, inputs: Rows, targets: Tensor, loss: Loss, how: Optimisation) -> None:
        """Fit the teacher to `targets`, row by row the server's word on `inputs`."""
        with self.on_device(self.teacher), self.clock.phase("distil", how.epochs) as advance:
            offline.distil(
                self.teacher,
                inputs,
                targets,
                loss,
                how,
                self.rng("distillation"),
                on_epoch=lambda _epoch, _loss: advance(),
            )

    @property
    def from_teacher(self) -> Provenance:
        """The provenance of what is computed from the teacher alone."""
        if self.allowance is None:
            return PostProcessing(of=Unprotected("teacher training"))
        return PostProcessing(of=self.learned_by or self.setting.training)

    def example_count(self) -> Value:
        """How many samples this client holds, int64, at least 1: a fact about private data."""
        return self._count("example count", torch.tensor(len(self._data)), least=1)

    def class_counts(self) -> Value:
        """How many samples of each class this client holds, int64 (C,), at least 0."""
        counts = torch.bincount(self._data.y, minlength=self.setting.classes)
        return self._count("class counts", counts, least=0)

    def _count(self, what: Count, counts: Tensor, *, least: int) -> Value:
        """The counts; under DP with noise that is drawn once, since drawing it anew costs anew."""
        if self.allowance is None:
            return Value(counts, Release(Unprotected(what)))
        event = self.setting.counting(what)
        if what in (kept := group(RELEASED, self.state)):
            return Value(kept[what], PostProcessing(of=event))
        self.allowance.spend(event, generator=GENERATOR)
        noisy = mechanisms.laplace(
            counts.double(),
            sensitivity=1.0,  # one record more or less changes one count by one
            noise_multiplier=event.noise_multiplier,
            source=NoiseSource(),
        )
        released = noisy.round().clamp(min=least).long()
        self.keep(RELEASED, {what: released})
        return Value(released, Release(event))

    def moments(
        self, model: nn.Module, *, basis: Basis | None, intercept: float, balance: float
    ) -> tuple[Moments, Provenance]:
        """The moments of this client's records in a model's features: see `sums.moments`."""
        return sums.moments(self, model, basis=basis, intercept=intercept, balance=balance)

    def elected(self, voting: votes.Voting, count: votes.Count) -> tuple[Tensor, Provenance]:
        """The class that most of this client's teachers name, by query: see `votes.elected`."""
        return votes.elected(self, voting, count)

    def model(self) -> Upload:
        """The teacher itself, but for what never changes: see `Setting.sent`."""
        own = self.setting.of_client(self.client).sent(self.spec, self.teacher.state_dict())
        return Upload(values("model", own, self.from_teacher))

    def model_and_count(self) -> Upload:
        """The teacher itself, and how many samples taught it."""
        return self.model().with_values({"count": self.example_count()})

    def model_and_class_counts(self) -> Upload:
        """The teacher itself, and how many samples of each class taught it."""
        return self.model().with_values({"counts": self.class_counts()})

    def answer(self, inputs: Rows) -> Tensor:
        """The teacher's answers on N `inputs`, (N, *A) float32."""
        with self.on_device(self.teacher), self.clock.phase("answer"):
            return evaluate.answers(self.teacher, inputs)
