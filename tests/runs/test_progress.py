"""Progress through a file: what one process says, another hears, in order and once."""

import json

from fedkd.runs.under_way.progress import FILE, Follower, ProgressWriter


class Hearing:
    def __init__(self):
        self.heard = []

    def __getattr__(self, name):
        return lambda *values: self.heard.append((name, *values))


def test_what_is_recorded_is_heard_in_order_once(tmp_path):
    follower, hearing = Follower(tmp_path), Hearing()
    follower.pass_on(hearing)
    recorder = ProgressWriter(tmp_path)
    recorder.round_begins(1, [0, 2])
    recorder.client_ends(0, None)
    follower.pass_on(hearing)
    recorder.client_ends(2, "its app crashed")
    recorder.server_does("distil", 1, 3)
    recorder.round_ends({"round": 1})
    follower.pass_on(hearing)
    follower.pass_on(hearing)
    assert hearing.heard == [
        ("round_begins", 1, [0, 2]),
        ("client_ends", 0, None),
        ("client_ends", 2, "its app crashed"),
        ("server_does", "distil", 1, 3),
        ("round_ends", {"round": 1}),
    ]


def test_half_a_line_is_heard_once_it_is_whole(tmp_path):
    follower, hearing = Follower(tmp_path), Hearing()
    line = json.dumps(["round_begins", 1, [0]]) + "\n"
    with (tmp_path / FILE).open("w") as file:
        file.write(line[:9] + "\n")  # a killed writer's
        file.write(line[:9])
        file.flush()
        follower.pass_on(hearing)
        assert hearing.heard == []
        file.write(line[9:])
    follower.pass_on(hearing)
    assert hearing.heard == [("round_begins", 1, [0])]


def test_who_comes_later_hears_all_of_it(tmp_path):
    recorder = ProgressWriter(tmp_path)
    recorder.round_begins(1, [0])
    late, hearing = Follower(tmp_path), Hearing()
    recorder.fails("too few", 4)
    late.pass_on(hearing)
    assert hearing.heard == [("round_begins", 1, [0])]
    assert late.failure == ("too few", 4)
