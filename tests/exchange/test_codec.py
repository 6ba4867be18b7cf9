"""The codec: what is sent comes back, and what is malformed stays out, unquoted."""

import json
import math
import re
import struct
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedkd.errors import MessageError
from fedkd.exchange.codec import check_values, decode, encode, half
from fedkd.specs import TensorSpec

FLOATS = [torch.float64, torch.float32, torch.float16]
DTYPES = [*FLOATS, torch.int64, torch.int32, torch.uint8, torch.bool]
SECRET = "patient-4711"

shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: name != "__metadata__"
)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    shape, dtype = draw(shapes), draw(st.sampled_from(DTYPES))
    values = draw(
        st.lists(st.integers(0, 200), min_size=math.prod(shape), max_size=math.prod(shape))
    )
    return torch.tensor(values, dtype=torch.int64).reshape(shape).to(dtype)


messages = st.dictionaries(names, tensors(), max_size=4)


def same(left: Tensor, right: Tensor) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and torch.equal(left, right)


@settings(deadline=None)
@given(message=messages)
def test_what_is_encoded_is_decoded_whether_or_not_it_is_expected(
    message: dict[str, Tensor],
) -> None:
    expected = {name: TensorSpec.of(tensor) for name, tensor in message.items()}
    for decoded in (decode(encode(message)), decode(encode(message), expected)):
        assert set(decoded) == set(message)
        assert all(same(decoded[name], tensor) for name, tensor in message.items())


@settings(deadline=None)
@given(message=messages, data=st.data())
def test_the_same_tensors_are_the_same_bytes(
    message: dict[str, Tensor], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(list(message)))
    assert encode({name: message[name].clone() for name in order}) == encode(message)


@settings(deadline=None)
@given(message=messages)
def test_a_specification_knows_the_size(message: dict[str, Tensor]) -> None:
    for tensor in message.values():
        assert TensorSpec.of(tensor).nbytes == tensor.nbytes


def test_views_gradients_and_shared_memory_travel_as_values() -> None:
    weights = torch.arange(6.0).reshape(2, 3).requires_grad_()
    message = {"a": weights, "tied": weights, "transposed": weights.T, "part": weights[:, 1:]}
    decoded = decode(encode(message))
    assert all(same(decoded[name], tensor.detach()) for name, tensor in message.items())
    assert not any(tensor.requires_grad for tensor in decoded.values())


def test_a_dtype_that_is_not_carried_is_named() -> None:
    with pytest.raises(MessageError, match=r"tensor 'z' has dtype torch\.complex64: the codec"):
        encode({"z": torch.zeros(2, dtype=torch.complex64)})


@settings(deadline=None)
@given(values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_half_rounds_and_never_makes_an_infinity(values: list[float]) -> None:
    exact = torch.tensor(values)
    halved = half(exact)
    assert halved.dtype == torch.float16
    assert bool(halved.isfinite().all())
    clamped = exact.double().clamp(-65504, 65504)
    allowed = clamped.abs() * 2**-11 + 2**-24
    assert bool(((halved.double() - clamped).abs() <= allowed).all())


def test_half_hides_no_nan() -> None:
    assert half(torch.tensor([float("nan")])).isnan().all()


# What a server asks for in the tests below, and what an honest client sends.
EXPECTED = {"logits": TensorSpec((2, 3)), "count": TensorSpec((), torch.int64, low=1)}


def honest() -> dict[str, Tensor]:
    return {"logits": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(5)}


def message(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(start: int, end: int, shape: Any = (2, 3), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


COUNT = entry(24, 32, (), "I64")
GOOD = {"logits": entry(0, 24), "count": COUNT}
DATA = bytes(24) + struct.pack("<q", 1)


def test_the_hand_made_message_is_good() -> None:
    decoded = decode(message(GOOD, DATA), EXPECTED)
    assert torch.equal(decoded["logits"], torch.zeros(2, 3))
    assert int(decoded["count"]) == 1


def refusal(payload: bytes) -> str:
    with pytest.raises(MessageError) as caught:
        decode(payload, EXPECTED)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def sent(**changes: Tensor) -> bytes:
    return encode({**honest(), **changes})


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (sent(logits=torch.full((2, 3), float("nan"))), "field 'logits' holds NaN or infinity"),
        (sent(logits=torch.full((2, 3), float("inf"))), "field 'logits' holds NaN or infinity"),
        (sent(logits=torch.full((2, 3), -float("inf"))), "field 'logits' holds NaN or infinity"),
        (sent(logits=torch.zeros(3, 2)), "field 'logits': shape is not (2, 3)"),
        (sent(logits=torch.zeros(6)), "field 'logits': shape is not (2, 3)"),
        (sent(logits=torch.zeros(2, 3, 1)), "field 'logits': shape is not (2, 3)"),
        (sent(logits=torch.zeros(2, 3).half()), "field 'logits': dtype is not torch.float32"),
        (sent(count=torch.tensor(5.0)), "field 'count': dtype is not torch.int64"),
        (sent(count=torch.tensor(0)), "field 'count' is not within [1, inf]"),
        (sent(count=torch.tensor(-(2**63))), "field 'count' is not within [1, inf]"),
        (encode({"logits": torch.zeros(2, 3)}), "field 'count' is missing"),
        (encode({}), "field 'logits' is missing"),
        (sent(**{SECRET: torch.zeros(1)}), "message has other fields than the 2 that were agreed"),
    ],
)
def test_a_message_that_breaks_the_agreement_is_refused(payload: bytes, complaint: str) -> None:
    assert refusal(payload) == complaint


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\0" * 7,
        SECRET.encode(),
        message(b""),
        message(b"{"),
        message(b"\xff\xfe" + SECRET.encode("utf-16-le")),
        message([SECRET]),
        message(SECRET),
        message(None),
        message({}),
        message(b"[" * 2000),
        message(b'{"a":' * 350),
        message({"logits": [SECRET], "count": 5}),
        message({"logits": {}, "count": {}}),
        message(GOOD, DATA, length=0),
        message(GOOD, DATA, length=5),
        message(GOOD, DATA, length=2**63),
        message(GOOD, DATA, length=2**64 - 1),
        message(GOOD, DATA[:-1]),
        message(GOOD, DATA + b"\0"),
        message(GOOD),
        message({**GOOD, "logits": entry(8, 32)}, DATA),
        message({**GOOD, "logits": entry(0, 32)}, DATA),
        message({**GOOD, "logits": entry(24, 0)}, DATA),
        message({**GOOD, "logits": entry(-24, 0)}, DATA),
        message({**GOOD, "logits": entry(2**62, 2**62 + 24)}, DATA),
        message({"logits": entry(0, 24), "count": entry(8, 16, (), "I64")}, DATA),
        message({"logits": entry(0, 24), "count": entry(32, 40, (), "I64")}, DATA + bytes(8)),
        message({**GOOD, "logits": entry(0, 24, [2.0, 3.0])}, DATA),
        message({**GOOD, "logits": {"dtype": "F32", "shape": [2, 3]}}, DATA),
        message({**GOOD, "logits": {**entry(0, 24), "shape": SECRET}}, DATA),
        message({**GOOD, "logits": {**entry(0, 24), "dtype": SECRET}}, DATA),
        message({**GOOD, "__metadata__": {SECRET: 5}}, DATA),
    ],
)
def test_a_message_that_is_none_is_refused(payload: bytes) -> None:
    refusal(payload)
    if payload not in (message({}), message(GOOD, DATA)):
        with pytest.raises(MessageError):
            decode(payload)


def test_two_fields_of_one_name_are_one_or_none() -> None:
    first, second = (json.dumps(entry(0, 24, shape)) for shape in ([6], [2, 3]))
    count = json.dumps(COUNT)
    for one, other in ((first, second), (second, first)):
        text = f'{{"logits": {one}, "logits": {other}, "count": {count}}}'.encode()
        try:
            decoded = decode(message(text, DATA), EXPECTED)
        except MessageError:
            continue
        assert {name: TensorSpec.of(t).shape for name, t in decoded.items()} == {
            "logits": (2, 3),
            "count": (),
        }


@pytest.mark.parametrize("excess", [1, 10**6])
def test_far_too_many_bytes_are_refused_before_they_are_looked_at(
    excess: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = int(re.findall(r"larger than the (\d+) bytes", refusal(b"{" * 10**6))[0])
    assert 32 < most < 4096
    assert refusal(b"{" * most) == "message is not valid safetensors"

    def never(*_: object) -> None:
        raise AssertionError("the payload was parsed")

    monkeypatch.setattr("json.loads", never)
    monkeypatch.setattr("fedkd.exchange.codec.load", never)
    assert "larger than" in refusal(b"{" * (most + excess))
    assert "larger than" in refusal(sent(logits=torch.zeros(2, 3)) + b" " * (most + excess))


def test_the_largest_honest_message_is_within_the_limit() -> None:
    name = "model/" + "block.attention." * 12 + "weight"
    honest = {f"{name}{i}": torch.zeros(2, 3, 4, 5) for i in range(200)}
    assert len(decode(encode(honest), {k: TensorSpec.of(t) for k, t in honest.items()})) == 200


@pytest.mark.parametrize(
    ("value", "low", "high", "fits"),
    [(0.0, 0, 1, True), (1.0, 0, 1, True), (1.0001, 0, 1, False), (-1e-30, 0, 1, False)],
)
def test_bounds_are_part_of_the_agreement(value: float, low: int, high: int, *, fits: bool) -> None:
    payload = encode({"p": torch.tensor([0.5, value, 0.5])})
    expected = {"p": TensorSpec((3,), low=low, high=high)}
    if fits:
        assert decode(payload, expected)["p"][1] == value
    else:
        with pytest.raises(MessageError, match=r"^field 'p' is not within \[0, 1\]$"):
            decode(payload, expected)


def _flipped(payload: bytes, edits: list[tuple[int, int]]) -> bytes:
    changed = bytearray(payload)
    for position, byte in edits:
        changed[position % len(changed)] = byte
    return bytes(changed)


def _cut(payload: bytes, edits: list[tuple[int, int]]) -> bytes:
    return payload[: edits[0][0] % (len(payload) + 1)]


def _grown(payload: bytes, edits: list[tuple[int, int]]) -> bytes:
    position = edits[0][0] % (len(payload) + 1)
    return payload[:position] + bytes(byte for _, byte in edits) + payload[position:]


@settings(max_examples=500, deadline=None)
@given(
    mutate=st.sampled_from([_flipped, _cut, _grown]),
    # Header and data are some 200 bytes; half of the edits fall into JSON's own alphabet.
    edits=st.lists(
        st.tuples(
            st.integers(0, 400), st.integers(0, 255) | st.sampled_from(list(b'0123456789{}[],:"'))
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_a_broken_message_is_refused_or_still_what_was_agreed(
    mutate: Callable[[bytes, list[tuple[int, int]]], bytes], edits: list[tuple[int, int]]
) -> None:
    payload = mutate(encode(honest()), edits)
    try:
        decoded = decode(payload, EXPECTED)
    except MessageError:
        return
    assert set(decoded) == set(EXPECTED)
    for name, spec in EXPECTED.items():
        tensor = decoded[name]
        assert (tuple(tensor.shape), tensor.dtype) == (spec.shape, spec.dtype)
        assert bool(torch.isfinite(tensor).all())
    assert int(decoded["count"]) >= 1


@settings(max_examples=200, deadline=None)
@given(payload=st.binary(max_size=200) | st.binary(max_size=80).map(message))
def test_noise_is_refused(payload: bytes) -> None:
    for expected in (EXPECTED, {"a": TensorSpec((0,))}):
        with pytest.raises(MessageError):
            decode(payload, expected)


@pytest.mark.parametrize("rows", range(4))
def test_where_fewer_rows_are_allowed_they_come_through_at_fewer_bytes(rows: int) -> None:
    expected = {"factors": TensorSpec((3, 2), low=-1, high=1, fewer_rows=True)}
    sent = torch.linspace(-1, 1, 6).reshape(3, 2)[:rows]
    payload = encode({"factors": sent})
    assert torch.equal(decode(payload, expected)["factors"], sent)
    assert len(encode({"factors": torch.zeros(3, 2)})) - len(payload) == (3 - rows) * 8


@pytest.mark.parametrize("shape", [(4, 2), (2, 3), (2, 1), (2,), (2, 2, 1), ()])
def test_fewer_rows_are_all_that_may_differ(shape: tuple[int, ...]) -> None:
    expected = {"factors": TensorSpec((3, 2), fewer_rows=True)}
    with pytest.raises(MessageError, match=r"'factors': shape is not \(3, 2\), or with fewer rows"):
        decode(encode({"factors": torch.zeros(shape)}), expected)


@pytest.mark.parametrize("shape", [None, 2, "32", [-1, 2], [2.0, 2], ["2", 2], [True, 2], [2]])
def test_a_header_whose_shape_is_none_is_refused_where_fewer_rows_are_allowed(shape: Any) -> None:
    header = {"factors": entry(0, 16, shape)}
    with pytest.raises(MessageError):
        decode(message(header, bytes(16)), {"factors": TensorSpec((3, 2), fewer_rows=True)})


def test_without_leave_fewer_rows_are_refused() -> None:
    with pytest.raises(MessageError, match=r"'logits': shape is not \(2, 3\)$"):
        decode(encode({"logits": torch.zeros(1, 3), "count": torch.tensor(1)}), EXPECTED)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_number_that_is_not_finite_is_seen_wherever_it_is(dtype, bad):
    for size in (1, 7, 8, 33, 200):
        expected = {"x": TensorSpec((size,), dtype)}
        for place in range(size):
            tensor = torch.ones(size, dtype=dtype)
            tensor[place] = bad
            with pytest.raises(MessageError, match="field 'x' holds NaN or infinity"):
                check_values({"x": tensor}, expected)


def test_views_and_shared_memory_are_encoded_as_copies_are():
    whole = torch.arange(60.0).reshape(3, 4, 5)
    given = {
        "a": whole, "again": whole, "part": whole[1], "turned": whole.transpose(0, 2),
        "empty": whole[:0], "image": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
    }  # fmt: skip
    copies = {n: t.clone(memory_format=torch.contiguous_format) for n, t in given.items()}
    assert encode(given) == encode(copies)
    assert all(torch.equal(found, given[name]) for name, found in decode(encode(given)).items())
