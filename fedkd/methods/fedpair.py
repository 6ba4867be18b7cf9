"""Our own method for one shot without data: evidence by pairs of classes, taught on shapes."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from fedkd.config import Optimisation
from fedkd.config.parts import absent
from fedkd.data.shapes import made_up, shapes
from fedkd.data.types import Samples
from fedkd.errors import ConfigError
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Broadcast, Tensors, Upload, group
from fedkd.knowledge import label
from fedkd.learning import offline
from fedkd.learning.consensus import average, by_class, class_weights
from fedkd.learning.consensus_by_pairs import by_pairs, saturated
from fedkd.learning.ensemble import Ensemble
from fedkd.learning.loop import OnEpoch
from fedkd.learning.supervised import balanced_offset
from fedkd.methods.core.base import Card, ClientContext, ServerContext, Setting, Uploads
from fedkd.methods.core.combining import rule_for
from fedkd.methods.core.one_shot import OneShot, PoolParams
from fedkd.methods.core.recipes import average_into_student, hand_out, start_from
from fedkd.models.heads import find_head, sizes
from fedkd.tasks.bounded import OF_LOGITS


class FedPairParams(PoolParams):
    """The parameters of fedpair; most of its parts can be left out, to see what they are worth."""

    epochs: int = Field(default=2, ge=1)
    """Of the student, over all images."""
    images: int = Field(default=180_000, ge=2)
    """How many are made up, once: many seen twice teach more than few seen often."""
    student_learning_rate: float = Field(default=0.02, gt=0)
    """Of the student, by SGD with momentum 0.9; it falls to 0 by a cosine."""
    temperature: float = Field(default=4.0, gt=0)
    """The distillation temperature."""
    absolute: float = Field(default=0.1, gt=0)
    """The weight of logits as they are beside their differences: see `pair_weights`. In the first
    round alone."""
    own_error: float = Field(default=0.02, ge=0)
    """How little more samples help a teacher: at 1 / own_error samples of a class it counts half of
    the most that it ever can. See `saturated`."""
    consensus: Literal["pairs", "classes", "probabilities", "logits"] = "pairs"
    """How teachers are heard together; the last three are what others do. From the second round on,
    when all know all classes from the average, pairs are heard as classes are, by `own_error`."""
    balanced: bool = True
    """Whether clients train with balanced softmax."""
    common_start: bool = True
    """Whether equal models start alike, and the student from their average."""
    blends: bool = True
    """Whether two thirds of the images are blends of two."""
    even: bool = True
    """Whether the student sees as many images of every class, by the ensemble's answer."""
    later: Optimisation | None = Field(default=None, exclude_if=absent)
    """How clients train from the second round on; None: as in the first."""


class FedPair(OneShot):
    """Clients send models and class counts; random shapes carry what they know together.

    Clients train with balanced softmax (Ren et al. 2020, arXiv:2007.10740), so that differences of
    logits are log likelihood ratios, and the server fits one set of logits to the differences that
    each client can judge, by how many samples it has seen of both: `consensus_by_pairs`. The
    student learns the answers on images to which no data went: `data.shapes`. Where all models
    are equal it starts from the clients' average, and there may be more rounds: the average goes
    back, and is where clients start from. Nothing else lasts, so that who comes late is no worse
    off, and the first of several rounds is the one of one.
    """

    card = Card(
        paper="ours",
        sends="its model and its class counts",
        needs="images; no data is shared",
        returns="the clients' average, where a round follows",
        asks=("classes", "image"),
        counts=("class counts",),
        combines=("answers", "models"),
    )
    Params = FedPairParams
    params: FedPairParams

    def check(self, setting: Setting) -> None:
        super().check(setting)
        rounds = setting.experiment.rounds
        if rounds > 1 and not self._alike(setting):
            raise ConfigError(
                f"key 'rounds' is {rounds}: method 'fedpair' hands clients their average as the "
                "next start, so expected equal models and method.common_start = true, or rounds = 1"
            )
        if self.params.later is not None and setting.experiment.privacy.unit != "none":
            raise ConfigError(
                "method.later is set: under [privacy] a plan has the same training in every round, "
                "so leave it out"
            )

    def expects(self, setting: Setting, client: int) -> Expected:
        return setting.model_and_class_counts(client)

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        counts = ctx.class_counts()
        if ctx.round > 1 and self.params.later is not None:
            ctx.training = self.params.later
        ctx.train(
            anchor=self._start(ctx, broadcast) if self._alike(ctx.setting) else None,
            offset=balanced_offset(counts.data) if self.params.balanced else None,
        )
        return ctx.model().with_values({"counts": counts})

    def start(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        if not self._alike(ctx.setting):
            return Broadcast()
        average_into_student(ctx, uploads, ctx.sizes(uploads, "counts"))
        if not ctx.ruled and rule_for(ctx.robust, "models") is None:  # which say whom to believe
            counts = ctx.counts(uploads, "counts")
            _answer_by_class(ctx.student, uploads, saturated(counts, self.params.own_error))
        # Clients learn more from the average, which real records made, than from the student.
        return Broadcast() if self.card.one_shot else copy.deepcopy(hand_out(ctx))

    def consensus(
        self,
        ctx: ServerContext,
        uploads: Uploads,
    ) -> Callable[[Tensor], Tensor]:
        counts = ctx.counts(uploads, "counts")
        plain: Callable[[Tensor], Tensor]
        match self.params.consensus:
            case "pairs" if ctx.round == 1:
                absolute, own_error = self.params.absolute, self.params.own_error
                plain = partial(by_pairs, counts=counts, absolute=absolute, own_error=own_error)
            case "pairs":
                plain = partial(by_class, counts=saturated(counts, self.params.own_error))
            case "classes":
                plain = partial(by_class, counts=counts)
            case "probabilities" | "logits" as of:
                plain = partial(average, of=of)
        return ctx.hearing(plain, OF_LOGITS)

    def distil(self, ctx: ServerContext, ensemble: Ensemble, on_epoch: OnEpoch) -> Samples:
        params = self.params
        draw = made_up if params.blends else shapes
        x = draw(params.images, ctx.setting.shape, ctx.rng("shapes"))
        answers = ensemble.answer(x)
        classes = answers.argmax(dim=-1)
        if params.even:
            rows = evenly(classes, ctx.rng("rows"))
            x, answers, classes = x[rows], answers[rows], classes[rows]
        offline.distil(
            ctx.student,
            x,
            answers,
            partial(label.kd, temperature=params.temperature),
            params.distillation.model_copy(update={"schedule": "cosine"}),
            ctx.rng("distillation"),
            threads=ctx.threads,
            on_epoch=on_epoch,
        )
        return Samples(x, classes)

    def _start(self, ctx: ClientContext, broadcast: Tensors) -> Tensors:
        """Have the teacher start as the average that came; in the first round as the student."""
        ctx.keeps_teacher = False
        fresh = ctx.setting.build(ctx.spec, purpose="student").state_dict()
        return start_from(ctx, {**fresh, **group("model", broadcast)})

    def _alike(self, setting: Setting) -> bool:
        """Whether clients and student have one architecture, and are to start alike."""
        experiment = setting.experiment
        specs = {str(spec) for spec in (*experiment.clients.models, experiment.student.model)}
        return self.params.common_start and len(specs) == 1


@torch.no_grad()
def _answer_by_class(student: nn.Module, uploads: Uploads, counts: Tensor) -> None:
    """Make each row of the student's head the mean of clients' rows, by their counts of its class.

    A client without samples of a class leaves its row nearly as it started, and a mean by all
    samples would draw on that as much.
    """
    layer = find_head(student)
    if layer is None or is_parametrized(layer) or sizes(layer)[1] != counts.shape[1]:
        return
    [name] = [name for name, each in student.named_modules() if each is layer]
    weights = class_weights(counts)
    for key, mean in layer.named_parameters():
        sent = [upload.get(f"model/{name}.{key}") for upload in uploads.values()]
        if rows := [each.double() for each in sent if each is not None]:  # nothing of a frozen one
            mean.copy_(torch.einsum("kc,kc...->c...", weights, torch.stack(rows)))


def evenly(classes: Tensor, generator: torch.Generator) -> Tensor:
    """Classes (N,) -> N rows, drawn with replacement so that all classes present are as likely."""
    weights = 1 / torch.bincount(classes).double()
    return torch.multinomial(weights[classes], len(classes), replacement=True, generator=generator)
