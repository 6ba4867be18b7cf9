"""One field of answers as the bytes that cross the wire, and back.

kind, 1 byte: 0, all rows; from 1 on, rows of one phase of the cache, or of all if there is none
base, 16 bytes, unless the kind is 0: the first of the SHA-256 of what the difference is from,
    or from what rows are taken that are not sent
symbols, then the numbers beside them; entropy coded, if that is asked for
"""

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor

from fedkd.config.exchange import Exchange
from fedkd.errors import MessageError
from fedkd.exchange.codec import half
from fedkd.exchange.coding import packing
from fedkd.exchange.coding.rows import CODES, Code
from fedkd.exchange.coding.transform import transform
from fedkd.specs import TensorSpec

_DIGEST = 16
_WHOLE = 0
_STEP, _STEP_OF_SHARES = 2.0, 0.1
"""The size of steps unless given, of logits and of probabilities: see docs/bytes.md."""


@dataclass(frozen=True, slots=True)
class AnswerField:
    """A field of a method's messages that has answers, classes along the last axis."""

    spec: TensorSpec
    """Of answers (N, *S, C) in float16."""
    lasting: bool
    """Whether row i answers the same input in every round."""


@dataclass(frozen=True, slots=True)
class Written:
    """How one field is written: a form, in one direction."""

    how: Exchange
    spec: TensorSpec
    up: bool
    """From a client; the server's own answers have steps of half the size."""

    @property
    def expected(self) -> TensorSpec:
        """What its bytes look like: how many at the most, or exactly."""
        most = self._size(self._all)
        if self.how.remembers:
            most = max(most, _DIGEST + self._size(self._rows(0)))
        varies = self.how.of_any_size or self.how.remembers
        return TensorSpec((1 + most,), torch.uint8, low=0, high=255, fewer_rows=varies)

    def write(self, answers: Tensor, base: Tensor | None, round: int) -> tuple[Tensor, Tensor]:
        """Answers as bytes, uint8 (bytes,), and what whoever reads them finds, float16.

        Args:
            answers: float16, as `spec` has them.
            base: what both sides found last, like `answers`; None: they have nothing in common.
            round: says which rows' turn it is, where answers stand for several.
        """
        rows, kind, head = self._all, _WHOLE, b""
        if base is not None and self.how.remembers:
            phase = round % len(self._phases)
            rows, kind, head = self._rows(phase), 1 + phase, digest(base)
        start = self._start(base if kind else None, rows)
        symbols, side = self._code.write(self._flat(answers)[rows], start)
        body = bytes([kind]) + head + self._bytes(symbols, side.tobytes())
        sent = torch.frombuffer(bytearray(body), dtype=torch.uint8)
        return sent, self.read(sent, base)

    def read(self, sent: Tensor, base: Tensor | None) -> Tensor:
        """What `write` made as answers, float16 as `spec` has them, and not looked at yet.

        Raises:
            MessageError: it is not what `write` makes, or a difference from something else.
        """
        data = sent.numpy().tobytes()
        if not data:
            raise MessageError("is empty")
        kind, start_of_body = data[0], 1
        if kind == _WHOLE:
            rows, base = self._all, None
        elif self.how.remembers and kind <= len(self._phases):
            rows, start_of_body = self._rows(kind - 1), 1 + _DIGEST
            if base is None or data[1:start_of_body] != digest(base):
                raise MessageError("is a difference from answers that are not here")
        else:
            raise MessageError("is of no kind that was agreed")
        start = self._start(base, rows)
        symbols, side = self._parts(data[start_of_body:], len(rows))
        found = half(self._code.read(symbols, side, start, self._columns))
        # Machines differ in which zero a clamp gives, and a digest tells the two apart.
        found = found.clamp(self.spec.low, self.spec.high) + 0.0
        if base is not None and len(rows) < len(self._all):
            whole = base.reshape(-1, self._columns).clone()
            whole[rows] = found
            found = whole
        return found.reshape(self.spec.shape)

    @property
    def _code(self) -> Code:
        if self.how.answers != "transform":
            return CODES[self.how.answers]
        step = self.how.step or (_STEP_OF_SHARES if self.spec.low == 0 else _STEP)
        return transform(step if self.up else step / 2)

    @property
    def _columns(self) -> int:
        return self.spec.shape[-1]

    @property
    def _all(self) -> Tensor:
        return torch.arange(self.spec.count // self._columns)

    @property
    def _phases(self) -> range:
        """A turn for each part of the rows that is sent in one round."""
        return range(self.how.cache or 1)

    def _rows(self, phase: int) -> Tensor:
        return self._all[phase :: len(self._phases)]

    def _flat(self, answers: Tensor) -> Tensor:
        return answers.float().reshape(-1, self._columns)

    def _start(self, base: Tensor | None, rows: Tensor) -> Tensor | None:
        """What the rows are a difference from."""
        return None if base is None or not self.how.delta else self._flat(base)[rows]

    def _plain_size(self, rows: int) -> tuple[int, int, int]:
        """Of so many rows: how many symbols, of how many bits, and bytes of numbers beside."""
        code, columns = self._code, self._columns
        beside = 2 * code.side(rows, columns)
        return code.symbols(rows, columns), code.bits(columns), beside

    def _size(self, rows: Tensor) -> int:
        """The most bytes that symbols and the numbers beside them take."""
        count, bits, beside = self._plain_size(len(rows))
        if self.how.of_any_size:
            return packing.most_squeezed(count * (1 + (bits > 8)) + beside)
        return packing.packed_size(count, bits) + beside

    def _bytes(self, symbols: packing.Symbols, beside: bytes) -> bytes:
        bits = self._code.bits(self._columns)
        if self.how.of_any_size:
            return packing.squeezed(packing.planes(symbols, bits) + beside)
        return packing.packed(symbols, bits) + beside

    def _parts(self, body: bytes, rows: int) -> tuple[packing.Symbols, "np.ndarray"]:
        """What `_bytes` made."""
        count, bits, beside = self._plain_size(rows)
        if self.how.of_any_size:
            plain = count * (1 + (bits > 8))
            body = packing.restored(body, plain + beside)
            symbols = packing.from_planes(body[:plain], bits)
        else:
            plain = packing.packed_size(count, bits)
            if len(body) != plain + beside:
                raise MessageError("has another size than was agreed")
            symbols = packing.unpacked(body[:plain], count, bits)
        if symbols.size and int(symbols.max()) >> bits:
            raise MessageError("holds numbers beyond those that were agreed")
        return symbols, np.frombuffer(body[plain:], "<f2")


def digest(answers: Tensor) -> bytes:
    """What names answers in float16 to the bit, 16 bytes."""
    return sha256(answers.numpy().astype("<f2").tobytes()).digest()[:_DIGEST]
