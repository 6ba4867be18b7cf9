"""What the page that follows a run shows, and to whom."""

import json
import os
import re
import subprocess
import sys
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from http.client import HTTPConnection
from threading import Thread

import pytest
from example_run import read_lines, write_lines, write_run

from fedkd.errors import FederationError, RunFolderError, UsageError
from fedkd.jobs.watch import AskedServer, watched
from fedkd.reports.live.following import Following
from fedkd.reports.live.server import LiveServer, PageSource
from fedkd.reports.live.standing import ServerNow
from fedkd.reports.live.view import view
from fedkd.runs.scores import ACCURACY_ALONE
from fedkd.runs.under_way.live import FILE, LiveWriter

MARKUP = '<img src=x onerror="alert(1)">'


@pytest.fixture
def run(tmp_path):
    """A run of five rounds, three of which are over, and the fourth under way."""
    path = write_run(tmp_path / "run", failures=[(2, 3, f"ValueError: {MARKUP}")])
    (path / "summary.json").unlink()
    write_lines(path, read_lines(path)[:3])
    return path


@pytest.fixture
def writer(run):
    with LiveWriter(run, ACCURACY_ALONE[0]) as writer:
        yield writer


def say(run, **changes):
    """Have `live.json` say something else."""
    (run / FILE).write_text(json.dumps(json.loads((run / FILE).read_text()) | changes))


def age(run, seconds):
    """Have the last sign of life be older."""
    at = (run / FILE).stat().st_mtime - seconds
    os.utime(run / FILE, (at, at))


def shown(run, server=None):
    return view(run, Following(run).look(), server)


def test_a_run_that_goes_on_is_shown(run, writer):
    now = shown(run)
    assert (now["state"], now["says"]) == ("running", "Running: round 4 of 5.")
    its = now["run"]
    assert (its["kind"], its["done"], its["rounds"]) == ("simulation", 3, 5)
    assert [tile["label"] for tile in its["tiles"]] == [
        "student’s accuracy", "privacy", "sent by clients", "time in rounds",
    ]  # fmt: skip
    assert its["tiles"][1]["value"] == "NO DP"
    assert its["tiles"][2]["value"] == "1.20 MB"
    assert its["epsilon"] is None
    assert [round for round, _ in its["score"]["points"]] == [1, 2, 3]
    assert [row[0] for row in its["table"]] == ["3", "2", "1"]
    assert its["table"][1][3] == "9 of 10"
    assert its["end"]["in"] == "6 s"  # two rounds of 3.2 s, a moment of them over
    [failure] = its["failures"]["latest"]
    assert failure == {"round": 2, "client": "client 3", "reason": f"ValueError: {MARKUP}"}
    assert (its["report"], its["stop"]) == (False, None)


def test_clients_of_a_deployment_have_names_and_phases(run):
    names = ["hospital-a", MARKUP, *(f"site-{i}" for i in range(2, 10))]
    about = {"run": "0" * 32, "shared": "", "clients": dict.fromkeys(names, 1), "flower": 7}
    (run / "deployment.json").write_text(json.dumps(about))
    with LiveWriter(run, ACCURACY_ALONE[0]) as writer:
        writer.round_begins(4, [0, 1, 2])
        writer.client_ends(1, "no answer within 5 s")
        writer.client_ends(2, None)
    say(run, state="running")
    server = ServerNow(run=7, status="running", online={"hospital-a": False})
    now = shown(run, server)["run"]
    assert now["kind"] == "deployment"
    asked, training, answered, lost = now["clients"]["phases"]
    assert asked == {
        "phase": "asked",
        "count": 1,
        "clients": [{"name": "hospital-a", "does": "not connected"}],
    }
    assert training["clients"] == []
    assert answered["clients"] == [{"name": "site-2", "does": ""}]
    assert lost["clients"] == [{"name": MARKUP, "does": "no answer within 5 s"}]
    assert now["failures"]["latest"][0]["client"] == MARKUP
    assert now["failures"]["count"] == 2
    assert now["stop"] == "7"


def test_epsilon_is_shown_against_its_budget(run, writer):
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(f"{config}\n[privacy]\nepsilon = 8\nnoise_multiplier = 1.0\n")
    lines = read_lines(run)
    for line, epsilon in zip(lines, (1.5, 2.25, 2.75), strict=True):
        line["privacy"] = {"epsilon": epsilon, "accountant": "pld"}
    write_lines(run, lines)
    now = shown(run)["run"]
    assert now["epsilon"] == [2.75, 8.0]
    assert now["tiles"][1]["value"] == "ε 2.75"
    assert now["tiles"][1]["note"] == "of a budget of 8"
    assert now["table"][0][-1] == "2.75"


def gone():
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("said", "old", "state", "words"),
    [
        ({}, 0, "running", "Running: round 4 of 5."),
        ({"pid": None}, 60, "killed", "Killed after three of five rounds: its process is gone"),
        ({"round": 4}, 60, "silent", "No sign of life after three of five rounds."),
        ({}, 60, "running", "Running: "),  # it has not begun a round yet, which may take long
        ({"host": "another"}, 60, "silent", "No sign of life"),
        ({"state": "ended"}, 60, "ended", "Ended after three rounds."),
        ({"state": "stopped"}, 60, "stopped", "Stopped after three of five rounds."),
        ({"state": "failed", "why": "w"}, 60, "failed", "Failed after three of five rounds: w."),
    ],
)
def test_how_a_run_stands_is_said_truthfully(run, writer, said, old, state, words):
    say(run, **(said | {"pid": gone()} if "pid" in said else said))
    age(run, old)
    now = shown(run)
    assert now["state"] == state
    assert now["says"].startswith(words)
    assert (now["since"] is None) == (state == "running")


@pytest.mark.parametrize(
    ("server", "state", "stop"),
    [
        (ServerNow(run=2**64 - 1, status="running"), "running", "18446744073709551615"),
        (ServerNow(run=7, status="running", answers=False), "running", None),
        (ServerNow(run=7, status="running", stopping=True), "stopping", None),
        (ServerNow(run=7, status="finished:stopped"), "stopped", None),
        (ServerNow(), "running", None),
    ],
)
def test_a_deployments_server_has_its_say(run, writer, server, state, stop):
    now = shown(run, server)
    assert (now["state"], now["run"]["stop"]) == (state, stop)


def test_a_run_that_was_told_to_stop_and_is_gone_has_stopped(run, writer):
    say(run, pid=gone())
    age(run, 60)
    told = ServerNow(run=7, status="running", answers=False, stopping=True)
    assert shown(run, told)["state"] == "stopped"
    assert shown(run, replace(told, stopping=False))["state"] == "killed"
    say(run, state="failed", why="no client answered")  # which is what stopping looks like to it
    assert shown(run, replace(told, answers=True, status="finished:failed"))["state"] == "stopped"
    assert shown(run, ServerNow(run=7, status="finished:stopped"))["state"] == "stopped"
    assert shown(run, ServerNow(run=7, status="finished:failed"))["state"] == "failed"


def test_an_older_run_without_signs_of_life_is_shown(run):
    assert shown(run)["state"] == "unknown"
    (run / "summary.json").write_text("{}")
    assert shown(run)["state"] == "ended"


def test_rounds_are_read_as_they_come_and_again_after_a_resume(run, writer):
    following = Following(run)
    lines = read_lines(run)
    assert len(following.look().rounds) == 3
    whole = json.dumps(lines[0] | {"round": 4})
    with (run / "rounds.jsonl").open("a") as file:
        file.write(whole[:40])
        file.flush()
        assert len(following.look().rounds) == 3
        file.write(whole[40:] + "\n")
    assert [each.round for each in following.look().rounds] == [1, 2, 3, 4]
    write_lines(run, lines[:2])  # a resume drops what is beyond the checkpoint
    assert [each.round for each in following.look().rounds] == [1, 2]
    other = run / "other"
    write_lines(run, [*lines[:2], lines[2] | {"participants": [0]}])
    (run / "rounds.jsonl").rename(other)
    other.rename(run / "rounds.jsonl")
    assert following.look().rounds[2].answered == 1


def test_what_cannot_be_read_is_shown_and_followed_on(run, writer):
    look = watched(run, AskedServer(run, None)).look
    assert look()["state"] == "running"
    (run / "rounds.jsonl").write_text("{}\n")
    damaged = look()
    assert (damaged["state"], damaged["run"]) == ("damaged", None)
    assert "rounds.jsonl' is corrupt (line 1, " in damaged["says"]
    (run / "rounds.jsonl").write_text("")
    assert look()["says"] == "Running: round 1 of 5."


def test_a_folder_that_is_not_there_is_waited_for_and_another_is_refused(run, tmp_path):
    look = watched(tmp_path / "runn", AskedServer(tmp_path / "runn", None)).look
    assert look()["state"] == "waiting"
    assert look()["says"].endswith("yet. did you mean 'run'?")
    run.rename(tmp_path / "runn")
    assert look()["run"]["done"] == 3
    with pytest.raises(RunFolderError, match=r"is no run folder, .*: name one run .* 'runn'"):
        watched(tmp_path, AskedServer(tmp_path, None))
    (tmp_path / "runn" / "config.toml").write_text('name = "x"\n[way]\nname = "offline"\n')
    with pytest.raises(RunFolderError, match=r"one party's distillation, no federation"):
        watched(tmp_path / "runn", AskedServer(tmp_path / "runn", None))
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"file' is a file: name a run folder"):
        watched(tmp_path / "file", AskedServer(tmp_path / "file", None))


class Asked:
    """A server of a page, and what was asked of its source."""

    def __init__(self):
        self.stopped = []
        source = PageSource(lambda: {"title": MARKUP}, lambda: b"<h1>report</h1>", self.stop)
        self.server = LiveServer(source)
        Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.port = self.server.server_address[1]
        self.host = f"127.0.0.1:{self.port}"

    def stop(self, run):
        if run != 7:
            raise FederationError("this run is over")
        self.stopped.append(run)
        return "told"

    def ask(self, part, method="GET", body=None, **headers):
        connection = HTTPConnection("127.0.0.1", self.port, timeout=600)
        path = part if part.startswith("/") else f"/{self.server.token}/{part}"
        headers = {"Host": self.host, **{k.replace("_", "-"): v for k, v in headers.items()}}
        connection.request(method, path, body, {k: v for k, v in headers.items() if v})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer, content


@pytest.fixture(scope="module")
def asked():
    made = Asked()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_the_page_is_for_this_machine_and_whoever_knows_its_address(asked):
    assert asked.server.server_address[0] == "127.0.0.1"
    assert asked.server.url == f"http://{asked.host}/{asked.server.token}/"
    assert len(asked.server.token) >= 32
    assert Asked().server.token != asked.server.token
    for path in (
        "/",
        "/state",
        "/x/state",
        f"/{asked.server.token}",
        f"/{asked.server.token[:-1]}/",
    ):
        answer, content = asked.ask(path)
        assert answer.status == 404
        assert asked.server.token.encode() not in content
    with pytest.raises(UsageError, match=rf"port {asked.port} on 127\.0\.0\.1: .*in use"):
        LiveServer(asked.server.source, asked.port)


def test_nothing_from_elsewhere_can_run_in_the_page(asked):
    answer, content = asked.ask("")
    assert answer.status == 200
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    for tag, inline in re.findall(r"<(script|style)>(.*?)</\1>", content.decode(), re.DOTALL):
        digest = b64encode(sha256(inline.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.findall(rb"https?:(?!//www\.w3\.org/2000/svg)|innerHTML|\beval\b", content)
    report, content = asked.ask("report")
    assert (report.status, content) == (200, b"<h1>report</h1>")
    assert "default-src 'none'" in report.headers["Content-Security-Policy"]
    assert "; sandbox" in report.headers["Content-Security-Policy"]
    state, content = asked.ask("state")
    assert state.headers["Content-Type"] == "application/json"
    assert json.loads(content) == {"title": MARKUP}
    for each in (answer, report, state):
        assert each.headers["X-Content-Type-Options"] == "nosniff"
        assert each.headers["Referrer-Policy"] == "no-referrer"
        assert each.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert each.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:{port}"}, 200),
        ({"Host": "evil.example:{port}"}, 403),  # a name that was rebound to this machine
        ({"Host": "127.0.0.1"}, 403),
        ({"Host": "127.0.0.1:{port}.evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:{port}"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
    ],
)
def test_another_site_reads_nothing(asked, headers, status):
    headers = {name: value.format(port=asked.port) for name, value in headers.items()}
    answer, content = asked.ask("state", **headers)
    assert answer.status == status
    assert (MARKUP.encode() in content.replace(b"\\", b"")) == (status == 200)


def test_only_the_page_itself_stops_a_run_and_only_the_one_it_shows(asked):
    own = {"Origin": f"http://{asked.host}"}
    body = json.dumps({"run": "7"})

    def post(part="stop", body=body, **headers):
        answer, content = asked.ask(part, "POST", body, **headers)
        return answer.status, json.loads(content)["says"]

    assert post()[0] == 403  # by a form or a command that names no origin
    assert post(Origin="https://evil.example")[0] == 403
    assert post(Host="evil.example", Origin="http://evil.example")[0] == 403
    assert post(f"/{'x' * 32}/stop", **own)[0] == 404
    assert post("state", **own)[0] == 404
    for wrong in ("", "7", "[7]", '{"run": 7}', '{"run": "-7"}', f'{{"run": "7"{" " * 1000}}}'):
        assert post(body=wrong, **own)[0] == 400
    assert asked.ask("stop", "GET", **own)[0].status == 404
    assert asked.stopped == []
    assert post(body='{"run": "8"}', **own) == (409, "this run is over")
    assert post(**own) == (200, "told")
    assert asked.stopped == [7]


def test_a_simulation_cannot_be_stopped(run, writer):
    with pytest.raises(FederationError, match="this run is over, another one was begun, or its"):
        watched(run, AskedServer(run, None)).stop(1)


def test_a_server_that_was_told_to_stop_may_not_be_told_again():
    now = ServerNow(run=7, status="running")
    assert now.may_stop
    assert not replace(now, stopping=True).may_stop
    assert not replace(now, status="finished:completed").may_stop
    assert not replace(now, status="").may_stop
