"""`method.top`: of answers over many classes the likeliest alone cross the wire."""

from typing import Annotated

from pydantic import Field

from fedkd.errors import ConfigError
from fedkd.tasks import Task

Top = Annotated[int | None, Field(ge=2)]
"""How many of the likeliest classes of each place are sent; None: all. See `exchange.likeliest`."""


def check_top(top: Top, task: Task) -> None:
    """Refuse to send some of the classes where there are none, or no more than these.

    Raises:
        ConfigError: says how many there are.
    """
    if top is not None and ("categorical" not in task.offers or top >= task.classes):
        raise ConfigError(
            f"method.top is {top}: expected fewer than the {task.classes} numbers of an answer of "
            f"task {task.name!r}, which must be classes, such as a vocabulary's tokens: leave it "
            "out"
        )
