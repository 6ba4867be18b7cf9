"""`--json`: the standard output is JSON alone, of the keys that docs/cli.md names."""

import json
import re
from pathlib import Path

import pytest
import tiny

from fedkd import configs
from fedkd.cli.command import SERVING, command_of, leaves

DOCUMENT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")


def documented() -> dict[str, list[str]]:
    """Of each command the keys that the document's table names."""
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \|$", DOCUMENT, flags=re.MULTILINE)
    return {
        command: re.findall(r"`(\w+)`", keys)
        for commands, keys in rows
        for command in re.findall(r"`([a-z ]+)`", commands)
    }


def test_the_document_names_what_every_command_answers():
    from fedkd.cli import app

    answering = {name for name, _ in leaves(command_of(app))} - SERVING
    assert sorted(answering - set(documented())) == []


@pytest.fixture
def ask(run):
    """Run a command with `--json`: what it answers, once it was held against the document."""

    def answer(*arguments, keys_of=None):
        status, out, complaint = run(*arguments, "--json")
        assert status == 0, complaint
        value = json.loads(out)
        if keys_of is not None:
            assert list(value) == documented()[keys_of]
        return value, complaint

    return answer


def test_runs_answer_in_json_and_show_their_rounds_on_the_standard_error(run, ask, rows, here):
    config = tiny.write_config(here / "tiny.toml", rows, {"rounds": 1})
    done, shown = ask("simulate", config, keys_of="simulate")
    folder = here / "runs" / "tiny"
    assert (done["run"], done["report"]) == (str(folder), str(folder / "report.html"))
    assert done["summary"] == json.loads((folder / "summary.json").read_text())
    assert re.match(r"tiny: fedmd, seed 7, one round\nround +1 ", shown)

    again = ("--set", "seed=8", "--out", "second")
    assert run("--quiet", "--json", "simulate", config, *again)[2] == ""  # before the name as well
    assert run("simulate", config, "--resume", "--quiet")[1:] != ("", "")  # what was found is said

    both, _ = ask("report", folder, "second", "--out", "both.html", keys_of="compare")
    assert both["runs"] == [str(folder), str(here / "second")]
    assert both["methods"][0]["seeds"] == [7, 8]
    assert ask("report", folder, keys_of="report")[0]["report"] == str(folder / "report.html")
    exported, _ = ask("export", folder, "--format", "torchscript", keys_of="export")
    assert Path(exported["path"]).is_file()
    assert exported["tests"] > 0


def test_a_mistake_leaves_the_standard_output_empty(run, here):
    status, out, complaint = run("simulate", "nowhere.toml", "--json")
    assert (status, out) == (2, "")
    assert complaint.startswith("error: ")


def test_lists_answer_in_json(ask):
    from fedkd import models
    from fedkd.learning import forms

    known, _ = ask("models")
    families = ["torchvision/NAME", "timm/NAME", "hf/FOLDER"]
    assert sorted(known) == sorted([*models.NAMES, "fusion", *families])
    assert known["mlp"]["options"] == {"hidden": [200, 200]}
    assert "fedkd[vision]" in known["timm/NAME"]["needs"]
    found, _ = ask("forms")
    assert list(found) == list(forms.BUILT_IN)
    assert found["kd"]["parameters"] == {"weight": 0.9, "temperature": 4.0}
    shown, _ = ask("methods")
    assert shown["fedprox"]["parameters"]["mu"] == 0.01
    for name, value in [("models", known), ("forms", found), ("methods", shown)]:
        assert {*documented()[name]} <= {*next(iter(value.values()))}


def test_deployments_keys_and_apps_answer_in_json(ask, rows, here):
    config = tiny.write_config(here / "tiny.toml", rows)
    made, _ = ask(
        "deploy", "keys", "keys", "--server", "localhost", "--client", "a", keys_of="deploy keys"
    )
    assert all(Path(path).is_file() for path in made["made"])
    shared, _ = ask("deploy", "share", config, "--out", "shared", keys_of="deploy share")
    app, _ = ask("deploy", "app", config, "--out", "app", keys_of="deploy app")
    assert Path(app["file"]).is_file()
    assert len(app["sha256"]) == len(shared["sha256"]) == 64


def test_packaged_experiments_are_listed_shown_and_copied(run, ask, here):
    from fedkd import config

    known, _ = ask("configs")
    assert list(known) == configs.names()
    for name, about in known.items():
        read = config.load if about["command"] == "simulate" else config.load_distillation
        assert read(name).data.name == about["data"]
        assert 20 < len(about["about"]) < 330
        assert about["about"].endswith(".")
    _, out, _ = run("configs")
    assert "demo  simulate, on fashion-mnist-sample\n    Ten clients, three arch" in out
    assert run("configs", "demo")[1] == Path(known["demo"]["file"]).read_text()
    one, _ = ask("configs", "demo")
    assert {*documented()["configs"], "toml"} == {*one}

    assert run("configs", "demo", "--out", "mine.toml")[::2] == (0, "")
    assert (here / "mine.toml").read_text() == one["toml"]
    for arguments, words in [
        (("demo", "--out", "mine.toml"), "'mine.toml' exists"),
        (("--out", "mine.toml"), "configs NAME"),
        (("dmeo",), "did you mean 'demo'?"),
    ]:
        status, out, complaint = run("configs", *arguments)
        assert (status, out, complaint.count("\n")) == (2, "", 1)
        assert words in complaint
