"""What becomes of pictures and volumes, in an experiment and at a site."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fedkd.config.parts import Frozen, absent

_Side = Annotated[int, Field(ge=1)]


class PictureKeys(Frozen):
    """What becomes of pictures: public, and learned from no party's data."""

    window: tuple[float, float] | None = Field(default=None, exclude_if=absent)
    """Pictures: as `range`, but values outside are cut off; such as [-160, 240] of a CT."""
    size: _Side | tuple[_Side, _Side] | None = Field(default=None, exclude_if=absent)
    """Pictures: height and width to which all are brought; one number is both."""
    channels: Literal[1, 3] | None = Field(default=None, exclude_if=absent)
    """Pictures: 1 makes all grey, 3 coloured; they are as they are unless given."""
    slices: bool = Field(default=False, exclude_if=absent)
    """Volumes: whether each slice, from feet to head, is a record."""

    @model_validator(mode="after")
    def _window_ascends(self) -> Self:
        if self.window is not None and not self.window[0] < self.window[1]:
            low, high = self.window
            raise ValueError(
                f"data.window is [{low:g}, {high:g}]: expected the lower bound first, then another"
            )
        return self
