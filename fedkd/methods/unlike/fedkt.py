"""Federated learning in one round, by votes of teachers and of their students."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from fedkd.config import Frozen, Optimisation
from fedkd.data.types import Samples
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Broadcast, Tensors, Upload, Value, group, values
from fedkd.knowledge import label
from fedkd.learning import evaluate, offline
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.methods.core.votes import Voting
from fedkd.models import call, weights
from fedkd.rng import torch_default
from fedkd.rows import Rows


class FedKTParams(Frozen):
    """FedKT's own parameters."""

    partitions: int = Field(default=2, ge=1)
    """How many times a client divides its records anew: the paper's s, and its students."""
    teachers: int = Field(default=5, ge=1)
    """Into how many parts, each of which teaches one teacher: the paper's t."""
    public_per_round: int | None = Field(default=None, ge=1)
    """On how many proxy samples teachers vote; all of them unless given."""
    digest: Optimisation = Optimisation(epochs=10)
    """How a client distils its teachers' votes into a student of its own."""
    student: Optimisation = Optimisation(epochs=10)
    """How the server distils all students' votes into the global one."""


class FedKT(Method):
    """Clients send students of their teachers' votes; the server hears who agrees with itself.

    Li, He & Song 2021, arXiv:2010.01017. A client divides its records `partitions` times among
    `teachers` teachers; the most voted class of each proxy sample is what one student for each
    division learns. The server counts a client's vote where all its students say the same
    (consistent voting). Where no client does, which leaves published code with class 0, and of ties
    all students decide: ours.

    Under `record` it is the paper's FedKT-L2: the noise is on teachers' votes, and all else comes
    of these. A record teaches one teacher of each division, so one record more or less changes one
    vote a sample and division, by which two counts move: each is a step of the Gaussian mechanism
    (GNMax, arXiv:1802.08908) in place of the paper's Laplace noise and its costs by the data: see
    `votes.elected`. No gradient is clipped, so teachers may be any models; `clients.training` is
    theirs.
    """

    card = Card(
        paper="Li et al. 2021, arXiv:2010.01017",
        sends="models that learned what its teachers vote for on a proxy set, once",
        needs="a proxy set",
        returns="nothing: it is one-shot",
        asks=("classes",),
        needs_public=True,
        one_shot=True,
    )
    Params = FedKTParams
    params: FedKTParams

    def expects(self, setting: Setting, client: int) -> Expected:
        spec = setting.experiment.client_model(client)
        own = setting.of_client(client).model_specs(spec)
        numbers = range(self.params.partitions)
        return {
            f"students/{i}/{name.removeprefix('model/')}": each
            for i in numbers
            for name, each in own.items()
        }

    def voting(self, setting: Setting) -> Voting:
        rows = len(setting.proxy_subset(self.params.public_per_round, round=1))
        return Voting(queries=rows * self.params.partitions, voters=self.params.teachers)

    def probe(self, setting: Setting, client: int, upload: Tensors, x: Rows) -> Tensor:
        # A mean, which is finite if all are.
        return self._answers(setting, client, upload, x).mean(dim=0)

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        inputs = ctx.setting.proxy_inputs(self.params.public_per_round, ctx.round)
        voting = self.voting(ctx.setting)
        labels, origin = ctx.elected(voting, partial(self._votes, ctx, inputs))
        sent: dict[str, Value] = {}
        for number, own in enumerate(labels.chunk(self.params.partitions)):
            student = self._taught(ctx, inputs, own, number)
            shown = ctx.setting.sent(ctx.spec, student.state_dict())
            sent |= values(f"students/{number}", shown, origin)
            ctx.teacher = student  # what the report scores; of several, the last
        return Upload(sent)

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        setting = ctx.setting
        said = [self._answers(setting, c, each, setting.proxy) for c, each in uploads.items()]
        labels = consistent(torch.stack([each.argmax(dim=-1) for each in said]), setting.classes)
        targets = F.one_hot(labels, setting.classes).float()
        ctx.distil(setting.proxy, targets, label.soft_cross_entropy, self.params.student)
        return Broadcast()

    def _answers(self, setting: Setting, client: int, upload: Tensors, x: Rows) -> Tensor:
        """What a client's students answer, (S, N, C)."""
        own, spec = setting.of_client(client), setting.experiment.client_model(client)
        seen, students = setting.clients_view(client, x), group("students", upload)
        answers = []
        for number in range(self.params.partitions):
            model = own.build(spec, purpose="specification")
            weights.complete(model, group(str(number), students))
            answers.append(evaluate.answers(model, seen))
        return torch.stack(answers)

    def _votes(
        self, ctx: ClientContext, inputs: Rows, samples: Samples, draws: torch.Generator
    ) -> Tensor:
        """How many teachers name each class of inputs, division by division, int64 (S * N, C)."""
        classes, likelihood = ctx.setting.classes, ctx.setting.task.likelihood
        taught = divided(len(samples), self.params.partitions, self.params.teachers, draws)

        def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            return likelihood.mean_nll(call.answer(model, x), y)

        votes = torch.zeros(self.params.partitions, len(inputs), classes, dtype=torch.long)
        for division in range(self.params.partitions):
            for number in range(self.params.teachers):
                purpose = f"teacher-{division}-{number}"
                teacher = ctx.setting.build(ctx.spec, purpose=purpose, client=ctx.client)
                part = samples.subset((taught[:, division] == number).nonzero()[:, 0])
                with _alone(ctx, purpose):
                    if len(part) > 1:  # of one record BatchNorm has no statistics
                        ctx.fit(teacher, (part.x, part.y), loss)
                with ctx.on_device(teacher), ctx.clock.phase("answer"):
                    said = evaluate.answers(teacher, inputs).argmax(dim=-1)
                votes[division] += F.one_hot(said, classes)
        return votes.flatten(0, 1)

    def _taught(self, ctx: ClientContext, inputs: Rows, labels: Tensor, number: int) -> nn.Module:
        """A fresh student that learned labels (N,) of inputs."""
        how, targets = self.params.digest, F.one_hot(labels, ctx.setting.classes).float()
        student = ctx.setting.build(ctx.spec, purpose=f"student-{number}", client=ctx.client)
        with ctx.on_device(student), ctx.clock.phase("distil", how.epochs) as advance:
            offline.distil(
                student,
                inputs,
                targets,
                label.soft_cross_entropy,
                how,
                ctx.rng(f"distillation-{number}"),
                on_epoch=lambda *_: advance(),
            )
        return student


def consistent(labels: Tensor, classes: int) -> Tensor:
    """Labels of K clients' S students, (K, S, N), -> the class that most clients stand for, (N,).

    A client stands for a class that all its students name. Of ties, and where nobody stands for
    any, it is the class that most students name, of these the first.
    """
    named = F.one_hot(labels, classes)  # (K, S, N, C)
    stands = named.all(dim=1).sum(dim=0)
    students = labels.shape[0] * labels.shape[1]
    return (stands * (students + 1) + named.sum(dim=(0, 1))).argmax(dim=-1)


def divided(count: int, times: int, parts: int, generator: torch.Generator) -> Tensor:
    """Which of `parts` parts each of `count` records is in, each time anew, int64 (count, times).

    Drawn for each record alone, one after another, so parts are of unlike size and may be empty:
    dealt evenly, where a record goes would depend on the others.
    """
    return torch.randint(parts, (count, times), generator=generator)


@contextmanager
def _alone(ctx: ClientContext, purpose: str) -> Iterator[None]:
    """Where votes are protected, a teacher is seen by its own vote alone.

    Whatever ended its training, such as that it diverged, would end the client's round. And what it
    drew would move what later ones draw: dropout's, from torch's generator, is a stream of the
    teacher's own.
    """
    if ctx.allowance is None:
        yield
        return
    with suppress(Exception), torch_default(ctx.rng(purpose), ctx.device):
        yield
