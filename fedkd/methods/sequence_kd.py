"""Distillation by sentences: what clients write on unlabelled texts is what the student learns."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from fedkd.config import Frozen, Optimisation
from fedkd.errors import ConfigError
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Broadcast, Tensors, Upload, Value
from fedkd.learning.evaluate import evaluating
from fedkd.methods.core.base import Card, ClientContext, Method, ServerContext, Setting, Uploads
from fedkd.models.text import writing
from fedkd.models.text.base import words_of
from fedkd.rows import whole
from fedkd.specs import TensorSpec
from fedkd.tasks import WRITTEN, Task


class SequenceKDParams(Frozen):
    """Sequence-level distillation's own parameters."""

    public_per_round: int | None = Field(default=None, ge=1)
    """Proxy texts used in a round, drawn anew each round; all of them unless given."""
    student: Optimisation = Optimisation(epochs=10, optimiser="adam", learning_rate=1e-3)
    """How the server trains the student on what clients wrote."""
    choice: Literal["all", "likest"] = "all"
    """What the student learns: what every client wrote, or of each text what is most like what the
    others wrote (minimum Bayes risk)."""
    prompt: int = Field(default=8, ge=1)
    """With how many tokens of a proxy text what is written begins, of a language model."""


class SequenceKD(Method):
    """Clients write on the proxy texts, and the student learns what they wrote.

    Kim & Rush 2016, arXiv:1606.07947, with several teachers. A token crosses the wire as one
    number, whatever the vocabulary. Several teachers' sentences have no mean: the student learns
    all, or by `choice = "likest"` of each text the one that shares most tokens with the others'
    (minimum Bayes risk, Kumar & Byrne 2004, NAACL), so that a lone client cannot decide it.
    """

    card = Card(
        paper="Kim & Rush 2016, arXiv:1606.07947",
        sends="what it writes on the proxy set, as token numbers",
        needs="a proxy set of texts, and a task of models that write",
        returns="nothing",
        asks=("text",),
        needs_public=True,
        asynchronous="answers",
        announces=True,
    )
    Params = SequenceKDParams
    params: SequenceKDParams

    def check(self, setting: Setting) -> None:
        if setting.task.targets not in WRITTEN:
            raise ConfigError(
                f"method 'sequence-kd' is for models that write, and task {setting.task.name!r} "
                f"has {setting.task.targets}: choose 'sequence-to-sequence' or 'language-model', "
                "or another method, such as fedmd"
            )
        writing.check_prompt(setting.task, self.params.prompt, key="method.prompt")
        if self.params.choice == "likest" and setting.cohort_size < 3:
            raise ConfigError(
                "method.choice = 'likest' takes the text that is most like the others', and of "
                f"{setting.cohort_size} clients in a round none is: ask 3 or more "
                "(clients.count, clients.participation), or take 'all'"
            )

    def expects(self, setting: Setting, client: int) -> Expected:
        size = len(setting.proxy_subset(self.params.public_per_round, round=1))
        length = setting.task.answer[0] + (setting.task.targets == "next-tokens")
        most = setting.task.classes - 1
        return {"written": TensorSpec((size, length), torch.int32, low=0, high=most)}

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        ctx.train()
        shown = self._shown(ctx.setting, ctx.round)
        with ctx.on_device(ctx.teacher), ctx.clock.phase("answer"), evaluating(ctx.teacher):
            written = writing.write(ctx.teacher, shown, ctx.setting.task)
        return Upload({"written": Value(written.int(), ctx.from_teacher)})

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        broadcast = ctx.announce(Broadcast())
        task, shown = ctx.setting.task, self._shown(ctx.setting, ctx.round)
        texts = [_with_beginning(each["written"].long(), shown, task) for each in uploads.values()]
        if self.params.choice == "likest":
            texts = [likest(texts, words_of(task).padding)]
        told = [writing.records(each, shown, task) for each in texts]
        x, y = (torch.cat(parts) for parts in zip(*told, strict=True))
        ctx.distil(x, y, task.likelihood.mean_nll, self.params.student)
        return broadcast

    def _shown(self, setting: Setting, round: int) -> Tensor:
        """What is written begins with, int64 (N, *inputs)."""
        inputs = whole(setting.proxy_inputs(self.params.public_per_round, round))
        return writing.begun(inputs, setting.task, self.params.prompt)


def _with_beginning(written: Tensor, shown: Tensor, task: Task) -> Tensor:
    """Whole texts of a language model begin as they were shown, whatever a client sent."""
    if task.targets == "tokens":
        return written
    padding = words_of(task).padding
    begins = F.pad(shown, (0, 1), value=padding)
    return torch.where(begins != padding, begins, written)


def likest(texts: Sequence[Tensor], padding: int) -> Tensor:
    """Of each text the one of K that is most like the others: K of (N, T) -> (N, T).

    Alike are two by F1 of their tokens, each as often as it stands there, without padding; the
    first of equals is taken.
    """
    rows = [[Counter(token for token in row if token != padding) for row in each.tolist()]
            for each in texts]  # fmt: skip

    def likeness(one: Counter[int], other: Counter[int]) -> float:
        return 2 * (one & other).total() / max(1, one.total() + other.total())

    chosen = []
    for same in zip(*rows, strict=True):
        by = [sum(likeness(one, other) for other in same) for one in same]
        chosen.append(by.index(max(by)))
    return torch.stack(list(texts))[torch.tensor(chosen), torch.arange(len(chosen))]
