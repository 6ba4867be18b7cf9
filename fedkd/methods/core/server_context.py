"""What a method's server part is given: the server's view of one round."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedkd import rng
from fedkd.clock import Clock
from fedkd.config import Optimisation
from fedkd.config.robust import Robust
from fedkd.data.types import Samples
from fedkd.exchange import aggregation
from fedkd.exchange.aggregation.agreement import Screened
from fedkd.exchange.aggregation.running import RunningMean
from fedkd.exchange.messages import Broadcast, Tensors, group
from fedkd.learning import evaluate, offline
from fedkd.learning.offline import Loss
from fedkd.methods.core import combining
from fedkd.methods.core.setting import Setting
from fedkd.models import weights
from fedkd.privacy import mechanisms
from fedkd.privacy.allowance import Allowance
from fedkd.privacy.source import GENERATOR, NoiseSource
from fedkd.rows import Rows
from fedkd.tasks.bounded import Bounded

_SCORES = "robust/scores"
"""Under which the state keeps what rules with a memory found of clients, (clients,)."""

Uploads = Mapping[int, Tensors]
"""What the server has let in, by client in ascending order; under secure aggregation the sum of
all, as if client 0 had sent it."""


@dataclass
class ServerContext:
    """The server in one round."""

    setting: Setting
    round: int
    student: nn.Module
    """The global student, on the CPU; the server part trains it in place, see `on_device`. It
    takes what `setting.students_view` leaves of inputs."""
    state: dict[str, Tensor]
    """The method's own, kept from round to round and in checkpoints."""
    clock: Clock
    threads: int
    """For work that can be split without changing its result."""
    test: Samples | None
    """For measuring alone; nothing is fitted to it or chosen by it. None: not in this round."""
    pooled: Callable[[], Samples]
    """All clients' private data: in a simulation only, for the upper bound."""
    allowance: Allowance | None = None
    """What may be done with the clients' answers under a client unit; None where it is not one."""
    summed: int | None = None
    """Under secure aggregation, how many clients' answers the one upload is the sum of."""
    running: RunningMean | None = None
    """The clients' models, where they were averaged as they came in and uploads are without."""
    capped: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Clients that claimed a larger share of the samples than `clients.max_weight` lets them have:
    what they claimed, and what they got."""
    apart: dict[int, float] = field(default_factory=dict)
    """Under a rule of `[robust]`, how far what a client sent was from what came of it, over the
    median client's."""
    unheard: dict[int, float] = field(default_factory=dict)
    """Who called a class too often, and on what share of inputs it was not heard for that."""
    robust: Robust | None = None
    """What is done about clients that lie; None: nothing."""
    screened: Screened | None = None
    """What the server found of the round's clients, where it screens them."""
    announcing: Callable[[Broadcast], None] | None = None
    """Sends the next round's calls; None: they wait until the step is over."""
    losses: dict[str, float] = field(default_factory=dict)
    """Mean losses worth a line in the round's record."""
    curve: list[float | None] = field(default_factory=list)
    """The student's headline score on the test set within the round, where a method measures it."""
    ensemble: dict[str, float | None] | None = None
    """Scores of the teachers' ensemble on the test set, where the server holds the teachers."""
    generated: Samples | None = None
    """Set by data-free methods: synthetic images and the classes that they were made for."""

    def rng(self, purpose: str) -> torch.Generator:
        """The server's stream in this round for `purpose`."""
        return rng.stream(self.setting.experiment.seed, purpose=purpose, round=self.round)

    @property
    def device(self) -> torch.device:
        """Where the server's models learn and answer."""
        return self.setting.device()

    def on_device(self, *models: nn.Module) -> AbstractContextManager[None]:
        """Have models there as long as the context lasts; what they learn comes back with them."""
        return self.setting.visiting(self.device, *models)

    def parties(self, uploads: Uploads) -> int:
        """How many clients' answers are in the uploads."""
        return self.summed or len(uploads)

    def counts(self, uploads: Uploads, field: str) -> Tensor:
        """How much clients say that they hold, (K,) or by class (K, C), float64.

        Of samples, or of what the proxy set has (`learning.familiarity`). By these a method
        weighs clients, and never by the claims as they came: nobody can check them, so none is more
        than `clients.max_weight` lets it be. Under a rule of `[robust]` they say whether a client
        holds any: 1 or 0.
        """
        return self._bounded(uploads, self._claimed(uploads, field))

    def sizes(self, uploads: Uploads, field: str) -> Tensor:
        """As `counts`, of a field by class: how many samples each client holds of all, (K,).

        Nobody holds less than 1, for under DP counts are noisy and may all be 0. That comes before
        the bound: a lone client above 0 would be the mean of all otherwise.
        """
        return self._bounded(uploads, self._claimed(uploads, field).sum(dim=1).clamp(min=1))

    def _claimed(self, uploads: Uploads, field: str) -> Tensor:
        return torch.stack([upload[field] for upload in uploads.values()])

    def _bounded(self, uploads: Uploads, claimed: Tensor) -> Tensor:
        if self.ruled or combining.rule_for(self.robust, "models"):
            return (claimed > 0).double()
        counts = aggregation.bounded(claimed, self.setting.experiment.clients.max_weight)
        before, after = (
            each.double().reshape(len(uploads), -1).sum(1) for each in (claimed, counts)
        )
        for client, more, less in zip(uploads, before.tolist(), after.tolist(), strict=True):
            if less < more:
                self.capped[client] = (more / float(before.sum()), less / float(after.sum()))
        return counts

    def combine(
        self,
        clients: Iterable[int],
        answers: Tensor,
        plain: Callable[[Tensor], Tensor],
        form: Bounded | None,
    ) -> Tensor:
        """What clients say together, (K, N, *A) -> (N, *A): by `plain`, or the rule of `[robust]`.

        Args:
            clients: whose answers they are, in their order.
            answers: to the same inputs.
            plain: the method's own way.
            form: in which a rule compares them, such as `likelihood.bounded`; None: as they are.
        """
        robust = self.robust
        if robust is None or not self.ruled:
            heard, unheard = combining.heard(robust, self.setting, answers, form)
            # Of answers that `protect` made one of, nobody is unheard.
            self.unheard |= {c: share for c, share in zip(clients, unheard, strict=False) if share}
            return plain(heard)
        who = list(clients)
        unknown = torch.zeros(self.setting.clients, dtype=torch.float64)
        known = self.state.get(_SCORES, unknown).clone()
        past = robust.memory * known[who]
        found, apart, scores = combining.together(robust, answers, form, past)
        self.apart.update(zip(who, apart.tolist(), strict=True))
        if scores is not None:
            known[who] = scores
            self.state[_SCORES] = known
        return found

    @property
    def ruled(self) -> bool:
        """Whether a rule of `[robust]` takes the place of means of answers."""
        return combining.rule_for(self.robust, "answers") is not None

    def hearing(
        self, plain: Callable[[Tensor], Tensor], form: Bounded | None
    ) -> Callable[[Tensor], Tensor]:
        """How an ensemble of clients' models answers: as `combine` does, without a memory."""

        def heard(said: Tensor) -> Tensor:
            return plain(combining.heard(self.robust, self.setting, said, None)[0])

        return combining.hearing(self.robust, heard, form)

    def average(
        self, clients: Iterable[int], models: Sequence[Tensors], counts: Sequence[float]
    ) -> dict[str, Tensor]:
        """What equal models come to: their mean by counts, or the rule of `[robust]`.

        Args:
            clients: whose models they are, in their order.
            models: K state dicts.
            counts: K of them, see `counts`.
        """
        found, apart = combining.averaged(self.robust, models, counts)
        if apart is not None:
            self.apart.update(zip(clients, apart.tolist(), strict=True))
        return found

    def announce(self, broadcast: Broadcast) -> Broadcast:
        """Let clients begin with the next round while the server part distils.

        Args:
            broadcast: what the server part is going to return; nothing that it holds may still be
                trained. The method's card says `announces`.

        Returns:
            The same.
        """
        if self.announcing is not None:
            self.announcing(broadcast)
        return broadcast

    def measure(self) -> None:
        """Add the student's headline score on the test set, as it is now, to the curve."""
        if self.test is None:
            return
        seen = Samples(self.setting.students_view(self.test.x), self.test.y)
        headline = self.setting.task.headline
        with self.on_device(self.student):
            self.curve.append(evaluate.score(self.student, seen, [headline])[headline.figure])

    def measure_ensemble(self, answers: Callable[[Rows], Tensor]) -> None:
        """Record the scores of the ensemble on the test set, given as inputs -> answers (N, *A)."""
        numbers = self.setting.task.numbers
        if self.test is None:
            return
        found = evaluate.score(answers(self.test.x), self.test, numbers)
        self.ensemble = {score.figure: found[score.figure] for score in numbers}

    def distil(
        self,
        inputs: Rows,
        targets: Tensor,
        loss: Loss,
        how: Optimisation,
        *,
        model: nn.Module | None = None,
    ) -> None:
        """Fit the student, or another `model`, to `targets`, row by row those of `inputs`.

        Of the inputs the student is shown its own view, another model all.
        """
        learner = self.student if model is None else model
        if learner is self.student:
            inputs = self.setting.students_view(inputs)
        with self.on_device(learner), self.clock.phase("distil", how.epochs) as advance:
            losses = offline.distil(
                learner,
                inputs,
                targets,
                loss,
                how,
                self.rng("distillation"),
                on_epoch=lambda _epoch, _loss: advance(),
            )
        if learner is self.student:
            self.losses["distil"] = losses[-1]

    def protect(self, answers: Tensor) -> Tensor:
        """What may be made of the clients' probabilities, (K, N, *S, C) -> (K or 1, N, *S, C).

        Under the client units one noisy answer for all: one-hot rows of the noisy plurality of
        votes (GNMax, Papernot et al. 2018, arXiv:1802.08908), or the noisy mean, its rows made
        non-negative and clipped to L2 norm 1 for each client. Otherwise the answers as they are.
        How many clients answered is public: what is hidden is what any one of them said.
        """
        if self.allowance is None:
            return answers
        shape, clients, classes = answers.shape[1:], len(answers), answers.shape[-1]
        answers = answers.reshape(clients, -1, classes)
        rows = answers.shape[1]
        event = self.setting.combining(rows)
        self.allowance.spend(event, generator=GENERATOR)
        source = NoiseSource()
        if event.what == "votes":
            votes = F.one_hot(answers.argmax(dim=-1), classes).sum(dim=0)
            # One client's changed vote moves two counts by one.
            noise = event.noise_multiplier * math.sqrt(2)
            winners = mechanisms.noisy_votes(votes, noise=noise, source=source)
            return F.one_hot(winners, classes).float().reshape(1, *shape)
        bounded = answers.float().clamp(min=0).flatten(0, 1)
        clipped = mechanisms.clip(bounded, 1.0).view_as(answers)
        noisy = mechanisms.gaussian(
            clipped.double().sum(dim=0),
            sensitivity=math.sqrt(2 * rows),  # two rows of norm 1 without a negative entry
            noise_multiplier=event.noise_multiplier,
            source=source,
        )
        return (noisy / clients).float().reshape(1, *shape)

    def load_teachers(self, uploads: Uploads) -> dict[int, nn.Module]:
        """The uploaded models as modules on the server's device, by client."""
        teachers = {}
        for client, upload in uploads.items():
            own, spec = self.setting.of_client(client), self.setting.experiment.client_model(client)
            teachers[client] = own.build(spec, purpose="specification").to(self.device)
            weights.complete(teachers[client], group("model", upload))
        return teachers
