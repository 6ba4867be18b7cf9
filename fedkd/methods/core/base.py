"""What a method is: a client part, a server part and its parameters, in one file.

A method sees a context and tensors, nothing of Flower and nothing of the round loop, so it is
tested on tiny tensors. It keeps no state of its own: what must last goes into `ctx.state`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fedkd.config import Frozen
from fedkd.exchange.codec import Expected
from fedkd.exchange.coding.fields import AnswerField
from fedkd.exchange.messages import Broadcast, Tensors, Upload, group
from fedkd.learning import evaluate
from fedkd.methods.core.client_context import ClientContext
from fedkd.methods.core.combining import Combined
from fedkd.methods.core.server_context import ServerContext, Uploads
from fedkd.methods.core.setting import Count, Setting, Sum
from fedkd.methods.core.votes import Voting
from fedkd.models import weights
from fedkd.rows import Rows
from fedkd.tasks import Ask

__all__ = ["Card", "ClientContext", "Method", "ServerContext", "Setting", "Uploads", "Voting"]


@dataclass(frozen=True, slots=True)
class Card:
    """What a method exchanges and asks for, in words and in flags."""

    paper: str
    sends: str
    needs: str
    returns: str
    asks: tuple[Ask, ...] = ()
    """What the task must offer; none of it for what works with any answer."""
    unlike_models: bool = True
    """Whether clients may have different architectures, and another one than the student's."""
    needs_public: bool = False
    one_shot: bool = False
    schedule: str = ""
    """What changes from the first of all rounds to the last, so that none can be added later."""
    simulation_only: bool = False
    has_teachers: bool = True
    privileged: bool = False
    """Whether the student may see other columns or views than the teachers: none of these becomes
    the student, and where the method trains it without `ctx.distil` it shows `students_view`."""
    aligns: bool = False
    """Whether teachers learn by `ctx.train` alone, so that `clients.align` brings them near to the
    proxy set, on which they are asked."""
    counts: tuple[Count, ...] = ()
    """Facts about private data that are sent beside the knowledge; each is paid for under DP."""
    sums: tuple[Sum, ...] = ()
    """Sums over private data that are sent; under DP each is one release, with noise of its own."""
    summable: bool = False
    """Whether the server part needs only the sum, name by name, of what all clients send: then
    `privacy.secure_aggregation` may give it that sum, in float64, as one upload."""
    averages: bool = False
    """Whether the server part uses clients' models in `average_into_student` alone, by their
    `count`: then those of a large cohort are averaged as they come in, and it gets uploads without
    them."""
    client_units: bool = False
    """Whether the server part asks `ctx.protect` of all it combines, and of nothing else."""
    asynchronous: Literal["", "models", "answers"] = ""
    """What `clients.asynchronous` makes of uploads that come late: `models` under `model/` are
    moved on to the newest broadcast, see `lateness`; of `answers`, which are to one proxy set, each
    client's last ones count until it answers anew. Empty: the server part needs a round's own."""
    announces: bool = False
    """Whether the server part gives `ctx.announce` what clients receive next before it distils."""
    combines: tuple[Combined, ...] = ()
    """What the server part combines by `ctx.combine` or `ctx.hearing`, which are answers, or by
    `ctx.average`, models: then a rule of `[robust]` may take the mean's place."""
    no_dp: str = ""
    """Why it cannot run under differential privacy, if it cannot."""


class Method:
    """The base of every method: its parameters, and the parts that most share."""

    card: ClassVar[Card]
    Params: ClassVar[type[Frozen]] = Frozen

    def __init__(self, params: Frozen) -> None:
        self.params = params

    def check(self, setting: Setting) -> None:
        """Refuse what the method cannot run, where the card's flags do not say it.

        Called before anything runs.

        Raises:
            ConfigError: with the keys that do not fit.
        """

    def expects(self, setting: Setting, client: int) -> Expected:
        """What this client's upload must hold, exactly."""
        raise NotImplementedError

    def answers(self, setting: Setting) -> Mapping[str, AnswerField]:
        """Which fields of its messages, of whatever direction, are answers to shared inputs.

        They are float16, with classes along the last axis, and `[exchange]` may write them in fewer
        bits; as it stands, there are none.
        """
        return {}

    def voting(self, setting: Setting) -> Voting | None:
        """Under `record`, what clients take of their teachers in place of DP-SGD: noisy votes.

        None, as it stands: teachers learn by DP-SGD. The client part votes by `ctx.elected`.
        """
        return None

    def probe(self, setting: Setting, client: int, upload: Tensors, x: Rows) -> Tensor | None:
        """What the model in an upload answers a few inputs; None if there is none.

        An upload whose answers are not finite is refused: averaged or distilled, such a model would
        end the run for all. As it stands, it tries what `ClientContext.model` sends.
        """
        given = group("model", upload)
        if not given:
            return None
        own, spec = setting.of_client(client), setting.experiment.client_model(client)
        model = own.models.to_ask(spec)
        weights.complete(model, given)
        return evaluate.answers(model, setting.clients_view(client, x))

    def said(
        self, ctx: ServerContext, uploads: Uploads, inputs: Callable[[], Rows]
    ) -> Tensor | None:
        """What clients say of the same inputs, (K, N, *A), by which they are compared.

        None where an upload holds neither answers nor a model. As it stands, models are asked:
        `probe` on `inputs`.
        """
        first, *others = uploads.items()
        x = inputs()
        if (answer := self.probe(ctx.setting, *first, x)) is None:
            return None
        answers = [self.probe(ctx.setting, *each, x) for each in others]
        return torch.stack([answer, *(each for each in answers if each is not None)])

    def begin(self, ctx: ServerContext) -> Broadcast:
        """What clients receive in the first round."""
        return Broadcast()

    def client(self, ctx: ClientContext, broadcast: Tensors) -> Upload:
        """Learn, then say what the client sends."""
        raise NotImplementedError

    def server(self, ctx: ServerContext, uploads: Uploads) -> Broadcast:
        """Aggregate, distil into `ctx.student`, and say what clients receive next."""
        raise NotImplementedError
