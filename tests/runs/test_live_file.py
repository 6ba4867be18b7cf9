"""What a run says of itself while it goes on."""

import platform
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import wait_until

from fedkd.errors import QuorumError, RunFolderError
from fedkd.runs.scores import ACCURACY_ALONE
from fedkd.runs.under_way import live
from fedkd.runs.under_way.live import LiveWriter, read_live

SCORE = ACCURACY_ALONE[0]


def test_the_round_under_way_is_told_while_it_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "EVERY", 0.01)
    with LiveWriter(tmp_path, SCORE) as writer:
        assert read_live(tmp_path).state == "running"
        assert read_live(tmp_path).host == platform.node()
        writer.round_begins(3, [4, 5, 6, 7])
        writer.client_does(4, "train", 2, 9)
        writer.client_does(5, "predict", 0, 1)
        writer.client_ends(5, None)
        writer.client_ends(6, "RuntimeError: <b>no</b>")
        writer.server_does("distil", 1, 30)
        now = wait_until(lambda: (n := read_live(tmp_path)).server and n.round and n)
        assert (now.state, now.round, now.server) == ("running", 3, "distil 1/30")
        assert (now.clients.asked, now.clients.answered) == ((7,), (5,))
        assert now.clients.training == {4: "train 2/9"}
        assert now.clients.lost == {6: "RuntimeError: <b>no</b>"}
        later = wait_until(lambda: (n := read_live(tmp_path)).beat > now.beat and n)
        assert later.clients == now.clients  # nothing happened, and it is alive
    assert read_live(tmp_path).state == "ended"
    assert read_live(tmp_path).host == ""


class OwnWordsError(RuntimeError):
    pass


@pytest.mark.parametrize(
    ("error", "state", "why"),
    [
        (QuorumError("round 1: 0 of 4 clients answered"), "failed", "round 1: 0 of 4 clients"),
        (OwnWordsError("a client's own words"), "failed", "OwnWordsError"),
        (KeyboardInterrupt(), "stopped", ""),
        (SystemExit(1), "stopped", ""),
    ],
)
def test_how_a_run_ended_is_said(tmp_path, error, state, why):
    def end():
        with LiveWriter(tmp_path, SCORE) as writer:
            writer.round_begins(1, [0])
            raise error

    with pytest.raises(type(error)):
        end()
    said = read_live(tmp_path)
    assert said.state == state
    assert said.why.startswith(why)
    assert "own words" not in said.why


EVENTS = st.lists(
    st.tuples(st.sampled_from(["does", "answers", "fails", "begins"]), st.integers(0, 4))
)


@settings(max_examples=30, deadline=None)
@given(events=EVENTS)
def test_each_client_asked_is_in_one_phase_and_whoever_was_given_up_stays_so(
    tmp_path_factory, events
):
    folder = tmp_path_factory.mktemp("run")
    lost = set()
    with LiveWriter(folder, SCORE) as writer:
        writer.round_begins(1, [0, 1, 2, 3, 4])
        for what, client in events:
            if what == "does":
                writer.client_does(client, "train", 1, 2)
            elif what == "begins":
                writer.round_begins(2, [0, 1, 2, 3, 4])
                lost = set()
            else:
                writer.client_ends(client, None if what == "answers" else "why")
                lost = lost | {client} if what == "fails" else lost - {client}
    phases = read_live(folder).clients
    listed = [*phases.asked, *phases.training, *phases.answered, *phases.lost]
    assert sorted(listed) == [0, 1, 2, 3, 4]
    assert sum(phases.counts.values()) == 5
    assert set(phases.lost) == lost


def test_of_a_million_clients_all_are_counted_and_few_listed(tmp_path):
    with LiveWriter(tmp_path, SCORE) as writer:
        writer.round_begins(1, list(range(1_000_000)))
        writer.client_ends(999_999, "x" * 10_000)
    now = read_live(tmp_path).clients
    assert now.counts == {"asked": 999_999, "training": 0, "answered": 0, "lost": 1}
    assert len(now.asked) == 100
    assert (tmp_path / live.FILE).stat().st_size < 3000


def test_a_run_goes_on_where_its_disk_refuses(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with LiveWriter(folder, SCORE) as writer:
        shutil.rmtree(folder)
        writer.round_begins(1, [0])
    assert not folder.exists()


def test_a_damaged_file_is_named(tmp_path):
    assert read_live(tmp_path) is None
    (tmp_path / live.FILE).write_text('{"pid": "x"}')
    with pytest.raises(RunFolderError, match=r"live\.json' is corrupt"):
        read_live(tmp_path)
