"""What every command says of itself, and what all of them take alike."""

import re
import shlex
import subprocess
import sys

import click
import pytest
from rich.console import Console

from fedkd import cli, configs
from fedkd.cli import common
from fedkd.cli.command import SERVING, command_of, leaves

ROOT = command_of(cli.app)
COMMANDS = dict(leaves(ROOT))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_commands_help_ends_with_an_example_that_it_takes(name):
    command = COMMANDS[name]
    [example] = re.findall(r"\n\nExample: (.*)\Z", command.help, flags=re.DOTALL)
    words = shlex.split(example)
    assert words[: 1 + len(name.split())] == ["fedkd", *name.split()]
    context = click.Context(command)
    given, *_ = command.make_parser(context).parse_args(words[1 + len(name.split()) :])
    missing = [each.name for each in command.params if each.required and not given.get(each.name)]
    assert missing == []
    if "config" in given:
        assert given["config"].endswith(".toml") or given["config"] in configs.names()


def test_groups_show_where_to_start():
    groups = [ROOT, *(each for each in ROOT.commands.values() if isinstance(each, click.Group))]
    assert all("fedkd" in group.epilog for group in groups)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_may_be_quiet_and_answer_in_json(name):
    flags = {flag for each in COMMANDS[name].params for flag in each.opts}
    assert "--quiet" in flags
    assert ("--json" in flags) is (name not in SERVING)


def test_options_that_install_completion_are_there_and_not_listed(run):
    flags = {flag for each in ROOT.params for flag in each.opts}
    assert {"--install-completion", "--show-completion"} <= flags
    help = run("--help")[1]
    options = help[help.index("Options") : help.index("Commands")]
    assert "completion" not in options
    assert "--install-completion" in help  # named below, where one starts


def completed(run, monkeypatch, *words):
    """What the shell is offered for the last word."""
    monkeypatch.setenv("_FEDKD_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", " ".join(("fedkd", *words)))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    return run()[1].split()


def test_names_are_completed(run, here, monkeypatch):
    (here / "runs" / "one").mkdir(parents=True)
    (here / "runs" / "one" / "config.toml").touch()
    (here / "runs" / "other").mkdir()
    (here / "demolition.toml").touch()
    for words, found in [
        (["simul"], ["simulate"]),
        (["simulate", "demo"], ["demo", "demolition.toml"]),
        (["simulate", "runs/o"], ["runs/one/", "runs/other/"]),
        (["configs", "keyp"], ["keypoints", "keypoints_distil"]),
        (["report", "runs/o"], ["runs/one"]),
        (["audit", "report", "overf"], ["overfitted"]),
        (["compare", "demo", "--methods", "fedmd,fedav"], ["fedmd,fedavg"]),
        (["simulate", "demo", "--set", "method.name=feda"], ["method.name=fedavg"]),
    ]:
        assert completed(run, monkeypatch, *words) == found, words


def test_completion_knows_all_methods_and_loads_none():
    script = (
        "import sys; from fedkd.cli.completion import method_names, configs; configs('')\n"
        "names = method_names(); assert not {'torch', 'pydantic'} & set(sys.modules)\n"
        "print(*names)"
    )
    shown = subprocess.check_output([sys.executable, "-c", script], text=True)
    from fedkd import methods

    assert shown.split() == list(methods.BUILT_IN)


def test_a_terminal_is_told_at_once_what_begins(monkeypatch, capsys, here):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Console(force_terminal=True, force_interactive=True)
    monkeypatch.setattr(common, "out", terminal)
    monkeypatch.setitem(sys.modules, "fedkd.api.running", None)  # what the command loads first
    monkeypatch.setattr(sys, "argv", ["fedkd", "simulate", "demo"])
    with pytest.raises(ImportError):
        cli.main()
    assert "simulate demo: loading libraries" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["fedkd", "simulate", "demo", "--quiet"])
    with pytest.raises(ImportError):
        cli.main()
    assert capsys.readouterr().out == ""


def test_no_color_is_honoured(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    colours = []
    for no in ("", "1"):
        monkeypatch.setenv("NO_COLOR", no)
        command = [sys.executable, "-m", "fedkd", "configs", "nosuch"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "unknown packaged experiment" in done.stderr
        colours.append(bool(re.search(r"\x1b\[(?:\d+;)*3\d", done.stderr)))
    assert colours == [True, False]
