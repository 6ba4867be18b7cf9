"""How answers are written on the wire."""

import json
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from fedkd.config.parts import Frozen

AnswersForm = Literal["float16", "int8", "int4", "int3", "int2", "int1", "top1", "transform"]


class Exchange(Frozen):
    """How what parties answer on shared inputs is written, from clients and to them alike."""

    answers: AnswersForm = "float16"
    """`int8` to `int2`: steps between a row's least and largest number. `int1`: above its mean or
    not. `top1`: its likeliest class. `transform`: steps along principal directions, entropy
    coded."""
    step: float | None = Field(
        default=None, ge=1e-4, le=1e4, exclude_if=lambda value: value is None
    )
    """`transform`: how large a step of a client's answer is, in the answer's own numbers; the
    server's, of which there is one, has half of it. 2 for logits and .1 for probabilities unless
    given."""
    entropy: bool = Field(default=False, exclude_if=lambda value: not value)
    """Whether what is written is entropy coded, so that what is frequent takes fewer bits."""
    delta: bool = Field(default=False, exclude_if=lambda value: not value)
    """Whether the difference to the last round's is written, where both sides have that."""
    cache: int | None = Field(default=None, ge=2, le=255, exclude_if=lambda value: value is None)
    """For how many rounds an answer to an input stands before it is sent anew; None: for one."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.step is not None and self.answers != "transform":
            raise ValueError(
                f"exchange.step = {self.step:g} is for exchange.answers = 'transform', and that is "
                f"{self.answers!r}, whose steps follow from each row: leave it out"
            )
        if self.answers == "transform" and self.entropy:
            raise ValueError(
                "exchange.answers = 'transform' is entropy coded in any case: leave out "
                "exchange.entropy"
            )
        if self.delta and self.answers == "float16":
            raise ValueError(
                "exchange.delta = true writes a smaller difference in fewer bits, and "
                "exchange.answers = 'float16' has as many for any: choose 'int4' or 'transform', "
                "or leave it out"
            )
        if self.delta and self.answers in ("int1", "top1") and not self.entropy:
            raise ValueError(
                f"exchange.delta = true with exchange.answers = {self.answers!r} saves nothing "
                "unless what is unchanged takes fewer bits: add entropy = true, or leave it out"
            )
        return self

    @staticmethod
    def table(word: str) -> dict[str, Any]:
        """What a form is called, such as `int4` or `transform+delta+step=1.5`, as a table."""
        answers, *rest = word.split("+")
        table: dict[str, Any] = {"answers": answers}
        for each in rest:
            key, _, value = each.partition("=")
            try:
                table[key] = json.loads(value or "true")
            except ValueError:  # whoever validates the table says what was expected
                table[key] = value
        return table

    @property
    def name(self) -> str:
        """All of it in one word, which `table` reads."""
        given = self.model_dump(exclude={"answers"}, exclude_none=True)
        rest = (key if value is True else f"{key}={value:g}" for key, value in given.items())
        return "+".join([self.answers, *rest])

    @property
    def of_any_size(self) -> bool:
        """Whether how many bytes an answer takes follows from what it says."""
        return self.entropy or self.answers == "transform"

    @property
    def remembers(self) -> bool:
        """Whether both sides keep what was answered last."""
        return self.delta or self.cache is not None

    def check_beside(
        self, *, unit: str, securely: bool, participation: float, asynchronous: bool
    ) -> None:
        """Refuse what the rest of an experiment does not go with.

        Raises:
            ValueError: with the keys that do not fit.
        """
        if securely:
            raise ValueError(
                "[exchange] writes a client's answers in few bits, and of numbers under the masks "
                "of privacy.secure_aggregation no bit can be spared: leave one of the two out"
            )
        if self.of_any_size and unit != "none":
            key = "exchange.entropy = true" if self.entropy else "exchange.answers = 'transform'"
            raise ValueError(
                f"{key} makes the size of a message follow from what it says, which whoever "
                f"watches the wire would see, under privacy.unit = {unit!r} too: choose a form of "
                "one size, such as exchange.answers = 'int4'"
            )
        if self.remembers and participation < 1:
            raise ValueError(
                f"{self.memory} goes on from what each client answered in the last round, and "
                f"clients.participation = {participation:g} asks others each time: leave one of "
                "the two out"
            )
        if self.remembers and asynchronous:
            raise ValueError(
                f"{self.memory} goes on from what all were told in the last round, and with "
                "clients.asynchronous each client was told something else last: leave one of the "
                "two out"
            )

    @property
    def memory(self) -> str:
        """The key by which both sides remember."""
        return "exchange.delta = true" if self.delta else f"exchange.cache = {self.cache}"
