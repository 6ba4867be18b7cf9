"""Rounds that wait for nobody: when the server makes a step, and how late an answer may be."""

from typing import Annotated

from pydantic import Field

from fedkd.config.parts import Frozen


class Asynchronous(Frozen):
    """How a federation runs whose server makes a step once enough answers have come.

    Buffered asynchronous aggregation, FedBuff: Nguyen et al. 2022, arXiv:2106.06639.
    """

    buffer: int = Field(ge=1)
    """The answers, each of another client, that the server waits for before a step."""
    staleness: int = Field(default=10, ge=0)
    """The most steps that the server may have made since the broadcast that an answer is to; an
    older answer is left out."""
    seconds: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(1.0,), min_length=1)
    """In a simulation: how long each client takes for an answer by the run's virtual clock, dealt
    in turn as models are. Of a deployment the real order counts."""

    def seconds_of(self, client: int) -> float:
        """How long client `client` takes for an answer."""
        return self.seconds[client % len(self.seconds)]
