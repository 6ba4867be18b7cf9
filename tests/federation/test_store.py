"""The store of all clients against a dictionary, with crashes, damage and company."""

import itertools
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.errors import StorageError
from fedkd.exchange.gate import Receipt
from fedkd.federation.store import contents
from fedkd.federation.store.state_store import StateStore

CLIENTS = range(3)


def until_last(_client):
    return 10**6


def content(client, round):
    return f"{client} {round};".encode() * (1 + client + round)


def receipts(client, round):
    return [Receipt("model", "public", 10 * round + client)]


def save(store, client, round, *, paid=False):
    answer = b"answer" + content(client, round) if paid else None
    store.save(client, content(client, round), receipts(client, round), round=round, answer=answer)


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    """So that a few states fill one."""
    monkeypatch.setattr(contents, "_FULL", 100)


def test_what_an_earlier_round_left_is_found_by_who_opens_it_next(tmp_path):
    with StateStore(tmp_path) as store:
        assert store.state(0, before=9) is None
        for round in (1, 3):
            save(store, 0, round)
    with StateStore(tmp_path) as store:
        assert store.state(0, before=1) is None
        assert store.state(0, before=3) == content(0, 1)
        assert store.state(0, before=4) == content(0, 3)
        assert store.state(1, before=4) is None


def test_what_is_needed_no_more_takes_no_room(tmp_path):
    """Two rounds of each client are needed, however many there were."""
    with StateStore(tmp_path) as store:
        sizes = []
        for round in range(1, 16):
            for client in range(10):
                if (client + round) % 3:
                    store.save(client, b"x" * 50, (), round=round, answer=None)
            store.name(until_last)
            store.sweep()
            files = (tmp_path / "store").glob("*.bin")
            sizes.append(sum(file.stat().st_size for file in files))
            if round > 1:
                assert all(store.state(each, before=round + 1) == b"x" * 50 for each in range(10))
    assert max(sizes) <= 2 * (10 * 2 * 50) + 200


def test_a_moved_state_stays_what_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "_FULL", 220)
    with StateStore(tmp_path) as store:
        store.save(0, b"x" * 200, (), round=1, answer=None)
        save(store, 7, 1, paid=True)
        for round in range(2, 6):
            save(store, 0, round)
            named = store.name(until_last)
            store.sweep()
        assert store.state(7, before=2) == content(7, 1)
        assert store.answer(7, round=1) == b"answer" + content(7, 1)
        assert store.differs(named, until_last) is None
    assert not (tmp_path / "store" / "000001.bin").exists()


def test_what_a_client_leaves_late_is_none_of_what_was_named(tmp_path):
    """One that was given up in round 2 ends after the round was kept."""
    with StateStore(tmp_path) as store:
        for client, round in ((0, 1), (1, 1), (0, 2)):
            save(store, client, round)
        named = store.name(until_last)
        save(store, 1, 2)
        assert store.differs(named, lambda _: 2) is None
        assert store.state(1, before=3) == content(1, 2)
        store.forget(lambda _: 2, named=named)
        assert [store.state(client, before=3) for client in (0, 1)] == [
            content(0, 2),
            content(1, 1),
        ]


steps = st.lists(
    st.tuples(
        st.sampled_from(["save", "save", "save", "pay", "keep", "crash", "resume"]),
        st.sampled_from(CLIENTS),
        st.integers(0, 120),
    ),
    max_size=25,
)


@settings(max_examples=25, deadline=None)
@given(steps, st.integers(1, 2))
def test_it_is_a_dictionary_that_outlives_crashes(steps, back):
    """Rounds go on; a crash leaves part of what was being written, a resume forgets what is new."""
    with tempfile.TemporaryDirectory() as folder:
        check_against_a_dictionary(Path(folder), steps, back)


def check_against_a_dictionary(folder, steps, back):
    states, answers, sent, round, kept = {}, {}, [], 1, 0
    store = StateStore(folder, back=back)
    for step, client, junk in steps:
        if step in ("save", "pay"):
            save(store, client, round, paid=step == "pay")
            states[client, round] = content(client, round)
            # What is older will not be asked for, not even if a resume forgets this one.
            for old in sorted(r for c, r in states if c == client)[: -1 - back]:
                del states[client, old]
            sent = [each for each in sent if each != (client, round)] + [(client, round)]
            if step == "pay":
                answers[client, round] = b"answer" + content(client, round)
        elif step == "keep":
            named, kept = store.name(until_last), round
            store.sweep()
            assert store.differs(named, until_last) is None
            round += 1
        else:
            store.close()
            if step == "crash":
                store = crashed(folder, junk, back)
            else:
                store = StateStore(folder, back=back)
                store.forget(dict.fromkeys(CLIENTS, kept).__getitem__)
                states = {k: v for k, v in states.items() if k[1] <= kept or k in answers}
        for each in CLIENTS:
            earlier = [r for c, r in states if c == each and r <= round]
            for before in [*earlier[-1:], round + 1]:
                wanted = max((r for r in earlier if r < before), default=None)
                found = store.state(each, before=before)
                assert wanted is None or found == states[each, wanted]
            assert store.answer(each, round=round) == answers.get((each, round))
        assert sorted(map(str, store.released())) == sorted(
            str([{"field": "model", "provenance": "public", "bytes": 10 * r + c}]) for c, r in sent
        )
    store.close()


def crashed(folder, junk, back):
    """A process that dies while it saves: it has written some of the content, and committed not."""
    store = StateStore(folder, back=back)
    with suppress(ZeroDivisionError), store._index.writing() as database:
        database.execute("DELETE FROM kept")
        store._contents.append(b"?" * junk)
        raise ZeroDivisionError
    store.close()
    return StateStore(folder, back=back)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("filled")
    with pytest.MonkeyPatch.context() as patch, StateStore(folder) as store:
        patch.setattr(contents, "_FULL", 100)
        for round in (1, 2):
            for client in CLIENTS:
                save(store, client, round)
        named = store.name(until_last)
    return folder, named


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damage_anywhere_is_found_or_does_no_harm(filled, data):
    folder, named = filled
    with tempfile.TemporaryDirectory() as place:
        run = Path(shutil.copytree(folder, Path(place) / "run"))
        file = data.draw(st.sampled_from(sorted((run / "store").iterdir())))
        whole = bytearray(file.read_bytes())
        at = data.draw(st.integers(0, len(whole) - 1))
        if data.draw(st.booleans(), label="cut"):
            del whole[at:]
        else:
            whole[at] ^= 1 << data.draw(st.integers(0, 7))
        file.write_bytes(whole)
        found, refusal = None, None
        try:
            with StateStore(run) as store:
                if store.differs(named, until_last) is None:
                    found = [store.state(client, before=3) for client in CLIENTS]
        except StorageError as error:
            refusal = str(error)
    assert found in (None, [content(client, 2) for client in CLIENTS])
    assert refusal is None or ("\n" not in refusal and "/store/" in refusal)


def test_a_whole_folder_of_another_run_is_not_what_was_named(filled, tmp_path):
    _, named = filled
    with StateStore(tmp_path) as store:
        for client in CLIENTS:
            save(store, client, 2)
        assert store.differs(named, until_last) == tmp_path / "store" / "index.db"


def fill(folder, first):
    with StateStore(folder) as store, ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda client: save(store, client, 1), range(first, first + 20)))


@pytest.mark.parametrize("shared", [False, True])
def test_threads_and_processes_write_at_once_and_nothing_is_lost(tmp_path, shared):
    context = get_context("fork")
    StateStore(tmp_path).close()
    StateStore(tmp_path, shared=shared).close()  # whoever begins says it
    others = [context.Process(target=fill, args=(tmp_path, first)) for first in (0, 20, 40)]
    for other in others:
        other.start()
    for other in others:
        other.join(600)
    assert [other.exitcode for other in others] == [0, 0, 0]
    with StateStore(tmp_path) as store:
        assert store._index.rows("PRAGMA journal_mode") == [("delete" if shared else "wal",)]
        for client in range(60):
            assert store.state(client, before=2) == content(client, 1)
        assert len(list(store.released())) == 60


def save_on(folder):
    with StateStore(folder) as store:
        for round in itertools.count(store.last_round() + 1):
            save(store, 0, round)


def test_a_process_that_is_killed_leaves_whole_states_or_none(tmp_path):
    for _ in range(3):
        other = get_context("fork").Process(target=save_on, args=(tmp_path,))
        other.start()
        while not (tmp_path / "store" / "000001.bin").exists():
            assert other.is_alive()
        time.sleep(0.05)
        other.kill()
        other.join()
        with StateStore(tmp_path) as store:
            last = store.last_round()
            assert last > 0
            assert store.state(0, before=last + 1) == content(0, last)
            assert store.differs(store.name(until_last), until_last) is None


@pytest.mark.parametrize("name", ["index.db", "000001.bin"])
def test_a_store_that_cannot_be_read_says_so_in_one_line(filled, tmp_path, name):
    folder, _ = filled
    run = Path(shutil.copytree(folder, tmp_path / "run"))
    file = run / "store" / name
    file.unlink()
    file.mkdir()
    with pytest.raises(StorageError, match=rf"store/{name}': [^\n]*; "), StateStore(run) as store:
        store.state(0, before=2)
