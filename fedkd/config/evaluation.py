"""Who is scored on the test set while a federation runs: `[output] evaluate`."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from fedkd.config.parts import Frozen, Output, absent


def _number_or(*words: str) -> Callable[[Any], Any]:
    """One of some words, or a number from 1."""

    def check(value: Any) -> Any:
        number = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if value is not None and value not in words and not number:
            known = ", ".join(map(repr, words))
            raise PydanticCustomError("evaluate", f"{known} or a number of at least 1")
        return value

    return check


class Evaluation(Frozen):
    """Which models are scored, how often, and on how many test records."""

    every: int = Field(default=1, ge=1)
    """Rounds from one scoring to the next; the last round always is scored."""
    clients: Annotated[Any, AfterValidator(_number_or("all", "last", "none"))] = Field(
        default=None, exclude_if=absent
    )
    """Whose teachers: `"all"`; `"last"`, all in the last round alone; `"none"`; or so many of a
    round's cohort, drawn anew each time. Unless given all where that costs little: see
    `federation.scoring`."""
    test_size: Annotated[Any, AfterValidator(_number_or("all"))] = Field(
        default=None, exclude_if=absent
    )
    """How many test records models are scored on before the last round, the same in all rounds, or
    `"all"`; the last round has the whole test set. 2,000 unless given, if there are more."""


class FederationOutput(Output):
    """Where run folders go, and what is measured for them."""

    evaluate: Evaluation | None = Field(default=None, exclude_if=absent)
    """None: as `Evaluation` has it."""
