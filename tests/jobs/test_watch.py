"""`fedkd watch` at the command line."""

import json
import webbrowser
from pathlib import Path
from urllib.parse import urlparse

import pytest
from example_run import write_run

from fedkd.federation.deploy.serving import Submission
from fedkd.jobs.watch import last_submitted, opened
from fedkd.reports.live.server import LiveServer


@pytest.fixture
def interrupted(monkeypatch):
    """Whoever serves a page is interrupted at once, as by Ctrl-C; the servers that were."""
    served = []

    def serve(server):
        served.append(server)
        raise KeyboardInterrupt

    monkeypatch.setattr(LiveServer, "serve_forever", serve)
    return served


def test_the_page_is_served_until_it_is_interrupted(run, here, interrupted):
    write_run(here / "run")
    status, out, complaint = run("watch", "run", "--no-browser")
    assert (status, complaint) == (0, "")
    [server] = interrupted
    assert out.splitlines()[:2] == ["following run", f"at {server.url}"]
    assert "Ctrl-C ends the page, not the run" in out
    assert server.socket.fileno() == -1  # closed


def test_what_the_page_would_show_is_printed_for_programs(run, here):
    write_run(here / "run", rounds=2)
    status, out, _ = run("watch", "run", "--json")
    shown = json.loads(out)
    assert (status, shown["state"], shown["run"]["done"]) == (0, "ended", 2)
    assert json.loads(run("watch", "rum", "--json")[1])["says"].endswith("did you mean 'run'?")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["watch", "."], "folder '.' is no run folder, it holds 'run' and no config.toml: name"),
        (["watch", "run/config.toml"], "'run/config.toml' is a file: name a run folder"),
        (["watch", "run", "--state", "none"], "run folder 'run' is no deployment: leave out"),
        (["watch", "new", "--state", "none"], "no server was started with this state folder"),
        (["deploy", "status", "--state", "none", "--watch"], "no server was started with this"),
    ],
)
def test_what_cannot_be_followed_is_one_line_and_status_2(run, here, arguments, complaint):
    write_run(here / "run")
    status, _, err = run(*arguments)
    assert status == 2
    assert complaint in err
    assert err.count("\n") == 1


def test_the_run_that_was_submitted_last_is_followed(run, here):
    state = here / "state"
    state.mkdir()
    about = {"folder": "", "address": "127.0.0.1:1", "keys": "keys", "pid": 1, "start": "s"}
    (state / "server.json").write_text(json.dumps(about))
    status, _, err = run("deploy", "status", "--state", "state", "--watch")
    assert (status, "nothing was submitted to this server yet" in err) == (2, True)
    for number in (1, 2):
        Submission(f"runs/{number}", "", {}).write(state, str(number) * 32)
    assert last_submitted(state) == Path("runs/2")


def test_a_browser_is_given_the_address_in_a_file_of_ones_own(monkeypatch):
    named = []
    monkeypatch.setattr(webbrowser, "open", named.append)
    with opened("http://127.0.0.1:1/secret/"):
        [address] = named
        file = Path(urlparse(address).path)
        assert "secret" not in address
        assert 'content="0;url=http://127.0.0.1:1/secret/"' in file.read_text()
        assert file.parent.stat().st_mode & 0o077 == 0
    assert not file.exists()
