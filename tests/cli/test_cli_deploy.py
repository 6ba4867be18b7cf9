"""`fedkd deploy` at the command line: what it makes, and one line for every wrong input."""

import tomllib

import pytest
import tiny
from safetensors import safe_open

from fedkd.federation.deploy import keys


@pytest.fixture
def config(here, rows):
    return tiny.write_config(here / "tiny.toml", rows)


def test_keys_are_made_and_named(run, here):
    status, out, _ = run(
        "deploy", "keys", "keys", "--server", "fed.example.org", "--client", "a", "--client", "b"
    )
    assert status == 0
    assert out.count("made keys/") == 8
    assert sorted(keys.public_keys(here / "keys")) == ["a", "b"]
    status, _, err = run("deploy", "keys", "keys", "--client", "a")
    assert status == 2
    assert "keys/clients/a exists: a key is never written over" in err


def test_what_all_hold_is_written_with_its_digest(run, config):
    status, out, _ = run("deploy", "share", config, "--out", "all.safetensors")
    assert status == 0
    with safe_open("all.safetensors", framework="pt") as file:
        assert file.get_slice("public").get_shape() == [40, 10]
    again = run("deploy", "share", config, "--out", "again.safetensors")[1]
    assert out.splitlines()[-1] == again.splitlines()[-1]


def test_the_bundle_is_written_with_the_digest_that_a_site_pins(run, config, here):
    status, out, _ = run("deploy", "app", config, "--out", "app")
    assert status == 0
    project = tomllib.loads((here / "app" / "pyproject.toml").read_text())
    digest = out.splitlines()[-1].removeprefix("SHA-256 ")
    assert digest in project["project"]["description"]
    assert [path.name for path in (here / "app").iterdir()] == ["pyproject.toml"]
    assert run("deploy", "app", config, "--out", "app")[0] == 2
    status, _, err = run("deploy", "app", config, "--out", "other", "--clients", "3")
    assert (status, "clients.count is 4 and 3 clients take part" in err) == (2, True)
    assert not (here / "other").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["client", "none.toml"], "site 'none.toml': No such file or directory"),
        (["server", "--state", "s", "--keys", "none"], "ca.crt is missing: make keys by"),
        (["submit", "tiny.toml", "--state", "none"], "no server was started with this state"),
        (["status", "--state", "none"], "no server was started with this state folder"),
        (["stop", "--state", "none"], "no server was started with this state folder"),
        (["submit", "none.toml", "--state", "none"], "experiment 'none.toml': No such file"),
        (["share", "tiny.toml", "--set", "data.name=x.npz"], "x.npz: No such file"),
        (["keys", "k", "--client", "a"], "--server is missing"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(run, config, arguments, complaint):
    assert config.exists()
    status, out, err = run("deploy", *arguments)
    assert (status, out) == (2, "")
    assert complaint in err
    assert err.count("\n") == 1
    assert err.startswith("error: ")


def test_a_trial_does_not_write_over_an_earlier_one(run, config, here):
    (here / "runs" / "tiny-federation").mkdir(parents=True)
    status, _, err = run("deploy", "local", config)
    assert status == 2
    assert "tiny-federation' exists: go on with --resume, or name another with --out" in err


def test_a_site_file_with_a_wrong_line_is_refused_before_anything_starts(run, here):
    (here / "SITE.toml").write_text('name = "a"\nserver = "h:1"\nkey = "k"\n')
    status, _, err = run("deploy", "client", "SITE.toml")
    assert status == 2
    assert "site 'SITE.toml': key 'data' is missing; key 'allow' is missing" in err


def test_a_site_without_its_key_says_who_makes_it(run, here):
    (here / "SITE.toml").write_text(
        'name = "a"\nserver = "h:1"\nkey = "k"\n[data]\npath = "d.npz"\n'
        '[allow]\nmethods = ["fedmd"]\n[privacy]\nunit = "none"\n'
    )
    status, _, err = run("deploy", "client", "SITE.toml")
    assert status == 2
    assert "key = 'k' is no file; the coordinator's 'fedkd deploy keys' makes it" in err
    assert not (here / "state").exists()


def test_help_teaches(run):
    status, out, _ = run("deploy", "--help")
    assert status == 0
    for command in (
        "local",
        "keys",
        "share",
        "app",
        "server",
        "client",
        "submit",
        "status",
        "stop",
    ):
        assert f"│ {command} " in out
        assert run("deploy", command, "--help")[0] == 0
