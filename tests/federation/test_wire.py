import pytest
from flwr.app import ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedkd import errors
from fedkd.errors import MessageError
from fedkd.federation import wire


@given(st.integers(0, 2**31), st.integers(0, 2**31), st.binary(max_size=200))
def test_a_call_comes_back_as_it_was(round, client, payload):
    call = wire.Call(round, client, payload)
    packed = wire.pack(call)
    assert wire.unpack(packed) == call
    assert wire.payload_bytes(packed) == len(payload)


class Patient4711Error(errors.DataError):
    pass


@pytest.mark.parametrize(
    ("error", "phase", "words"),
    [
        (ValueError("4711"), "train", "ValueError while training"),
        (UnicodeDecodeError("utf-8", b"4711", 0, 1, "4711"), "", "UnicodeDecodeError"),
        (Patient4711Error("4711"), "distil", "DataError while distilling"),
        (type("Patient4711", (Exception,), {})(), "answer", "Exception while answering"),
        (KeyError("4711"), "4711", "KeyError"),
    ],
)
def test_a_failure_says_the_nearest_known_kind_and_phase_and_no_more(error, phase, words):
    failure = wire.unpack(wire.pack_failure(wire.Failure.of(error, phase)))
    assert str(failure) == words


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.ConfigError("a: b\nc"), "ConfigError while training: a: b\nc"),
        (ValueError("one\ntwo"), "ValueError while training: one"),
        (Patient4711Error("its own words"), "DataError while training: its own words"),
        (type("Odd", (TypeError,), {})("one"), "TypeError while training: Odd: one"),
        (KeyError(), "KeyError while training"),
        (RuntimeError("x" * 999), f"RuntimeError while training: {'x' * 300}"),
    ],
)
def test_a_failure_in_a_simulation_quotes_the_exception(error, words):
    scrubbed = wire.Failure.of(error, "train")
    assert "words" not in wire.pack_failure(scrubbed)["failure"]
    failure = wire.unpack(wire.pack_failure(scrubbed.quoting(error, private=False)))
    assert failure.quoted == words
    assert str(failure) == words.partition(":")[0]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.ConfigError("its own words"), "ConfigError while training: its own words"),
        (ValueError("4711"), "ValueError while training"),
        (type("Odd", (TypeError,), {})("4711"), "TypeError while training: Odd"),
    ],
)
def test_under_privacy_it_quotes_nobody_elses_words(error, words):
    assert wire.Failure.of(error, "train").quoting(error, private=True).quoted == words


@pytest.mark.parametrize("header", [{}, {"round": 1}, {"round": 1.0, "client": 1}, {"round": [1]}])
def test_an_incomplete_header_is_no_message(header):
    content = wire.pack(wire.Call(1, 1))
    content["call"] = ConfigRecord(header)
    with pytest.raises(MessageError, match="not a fedkd message"):
        wire.unpack(content)


def test_an_empty_answer_is_no_message():
    with pytest.raises(MessageError, match="not a fedkd message"):
        wire.unpack(RecordDict())
