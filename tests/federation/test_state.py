import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.errors import StorageError
from fedkd.exchange.gate import Receipt
from fedkd.federation import disk_state
from fedkd.federation.disk_state import DiskState
from fedkd.federation.state import MemoryState


@pytest.fixture(params=["memory", "disk"])
def state(request, tmp_path):
    return MemoryState() if request.param == "memory" else DiskState(tmp_path / "client")


def tensors(number):
    return {"teacher/w": torch.full((2, 3), float(number)), "step": torch.tensor(number)}


def number(state, *, before):
    loaded = state.load(before=before)
    return int(loaded["step"]) if loaded else None


def test_a_client_that_never_took_part_remembers_nothing(state):
    assert state.load(before=1) == {}
    assert state.load(before=9) == {}


def test_tensors_come_back_as_they_were(state):
    kept = tensors(1) | {"transposed": torch.arange(6.0).reshape(2, 3).T}
    state.save(kept, round=1)
    kept["step"] += 5  # what happens to a tensor afterwards is not remembered
    loaded = state.load(before=2)
    assert int(loaded["step"]) == 1
    assert loaded["transposed"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_a_round_that_is_run_again_finds_what_it_found_the_first_time(state):
    state.save(tensors(1), round=1)
    state.save(tensors(5), round=5)
    assert number(state, before=5) == 1
    state.save(tensors(50), round=5)
    assert number(state, before=5) == 1
    assert number(state, before=6) == 50


def test_a_client_without_a_state_in_one_round_keeps_its_earlier_one(state):
    state.save(tensors(1), round=1)
    state.save({}, round=2)
    assert number(state, before=2) == 1


def test_a_secret_is_given_once_and_the_last_one_counts(state):
    assert state.take_secret(round=1) is None
    state.keep_secret(b"old", round=1)
    state.keep_secret(b"new", round=1)
    assert state.take_secret(round=2) is None
    assert state.take_secret(round=1) == b"new"
    assert state.take_secret(round=1) is None


def test_the_first_peers_of_a_round_stay(state):
    assert state.first_peers("0,1", round=1) == "0,1"
    assert state.first_peers("0,2", round=1) == "0,1"
    assert state.first_peers("0,2", round=2) == "0,2"


def test_a_secret_on_disk_is_its_owners_and_leaves_nothing(tmp_path):
    state = DiskState(tmp_path)
    state.keep_secret(b"secret", round=1)
    [file] = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert DiskState(tmp_path).take_secret(round=1) == b"secret"
    assert list(tmp_path.iterdir()) == []


def test_a_secret_is_gone_for_good_before_it_is_used(tmp_path, monkeypatch):
    """A loss of power must not bring it back: synced is the folder that has it no more."""
    state, found = DiskState(tmp_path), []
    state.keep_secret(b"secret", round=1)
    monkeypatch.setattr(disk_state, "sync", lambda path: found.append(list(path.iterdir())))
    state.take_secret(round=1)
    assert found == [[]]


def test_of_several_at_once_one_gets_the_secret(state):
    state.keep_secret(b"secret", round=1)
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: state.take_secret(round=1), range(32)))
    assert sorted(got, key=bool) == [None] * 31 + [b"secret"]


def test_disk_remembers_across_processes_and_keeps_two_rounds(tmp_path):
    for round in range(1, 6):
        DiskState(tmp_path).save(tensors(round), round=round)
    assert number(DiskState(tmp_path), before=6) == 5
    assert number(DiskState(tmp_path), before=5) == 4
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
        "round-000004.safetensors",
        "round-000005.safetensors",
    ]


def test_receipts_are_kept_once_a_round(tmp_path):
    logits, model = Receipt("logits", "public", 8), Receipt("model", "public", 9)
    for round, receipts in ((1, [logits]), (3, [logits]), (3, [model, logits])):
        DiskState(tmp_path).save(tensors(round), receipts, round=round)
    released = DiskState(tmp_path).receipts()
    assert [(r, [e["field"] for e in released[r]]) for r in released] == [
        (1, ["logits"]),
        (3, ["model", "logits"]),
    ]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.booleans(), min_size=1, max_size=12),
    st.data(),
)
def test_any_cut_off_at_any_round_is_survived(takes_part, data):
    """The client counts its rounds. Cut off and run again, it counts as if nothing had happened."""
    cut = data.draw(st.integers(1, len(takes_part)))
    state = MemoryState()
    rounds = [r for r, part in enumerate(takes_part, 1) if part]
    for round in [r for r in rounds if r <= cut] + [r for r in rounds if r >= cut]:
        state.save(tensors((number(state, before=round) or 0) + 1), round=round)
    expected = len(rounds) if rounds else None
    assert number(state, before=len(takes_part) + 1) == expected


def test_half_a_receipt_that_a_killed_writer_left_does_no_harm(tmp_path):
    state = DiskState(tmp_path)
    state.save(tensors(1), [Receipt("logits", "public", 8)], round=1)
    with (tmp_path / "receipts.jsonl").open("a") as file:
        file.write('\n{"round": 2, "rele')
    for round in (2, 3):
        state.save(tensors(round), [Receipt("logits", "public", 8)], round=round)
    assert list(state.receipts()) == [1, 2, 3]


def test_tensors_that_share_memory_are_kept(tmp_path):
    weights = torch.arange(4.0)
    DiskState(tmp_path).save({"embedding": weights, "classifier": weights}, round=1)
    loaded = DiskState(tmp_path).load(before=2)
    assert loaded["embedding"].tolist() == loaded["classifier"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("content", ["", "0,1", "0,2", "0,1 " + "0" * 64, "\0"])
def test_first_peers_that_were_changed_are_refused(tmp_path, content):
    DiskState(tmp_path).first_peers("0,1", round=1)
    (tmp_path / "peers-000001.txt").write_text(content)
    with pytest.raises(StorageError, match=r"peers-000001\.txt' is damaged"):
        DiskState(tmp_path).first_peers("0,1", round=1)


@pytest.mark.parametrize("name", ["answer-000001", "round-000001"])
def test_an_answer_is_sent_again_with_the_state_it_was_kept_with_or_not_at_all(tmp_path, name):
    state = DiskState(tmp_path)
    state.save(tensors(1), [Receipt("logits", "public", 8)], round=1, answer=b"answer")
    assert state.answer(round=1) == b"answer"
    (tmp_path / f"{name}.safetensors").write_bytes(b"another")
    with pytest.raises(StorageError, match=rf"answer-000001.*{name}|{name}"):
        state.answer(round=1)


def test_a_state_is_on_the_disk_before_the_client_goes_on(tmp_path, monkeypatch):
    synced = []
    sync = os.fsync

    def fsync(descriptor):
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    DiskState(tmp_path / "client").save(tensors(1), round=1)
    assert {"client", "receipts.jsonl", ".round-000001.safetensors.tmp"} <= set(synced)
