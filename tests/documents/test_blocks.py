"""Every block of the documents does: TOML validates, commands exist, Python runs."""

import re
import tomllib
from copy import deepcopy
from itertools import chain
from pathlib import Path
from typing import Any

import click
import fenced
import numpy as np
import pytest
import torch

import fedkd
from fedkd import cli, config, methods
from fedkd import configs as packaged
from fedkd.api import running
from fedkd.cli.command import command_of
from fedkd.federation.deploy.site import Policy

FEDERATION: dict[str, Any] = {
    "name": "docs",
    "data": {"public": {"size": 100}},
    "clients": {"models": ["mlp"]},
    "student": {"model": "mlp"},
    "method": {"name": "fedmd"},
}
ALONE: dict[str, Any] = {
    "name": "docs",
    "teachers": [{"model": "mlp"}],
    "student": {"model": "mlp"},
    "way": {"name": "offline"},
    "knowledge": [{"name": "kd"}],
}
ELSEWHERE = {"cd", "docker", "export", "helm", "kubectl", "mkdir", "ray", "sudo", "systemctl"}
"""What other programs are asked is theirs to say, but for a command of ours inside."""
LISTS = ("configs", "data", "forms", "methods", "models", "tasks")
SMALL = {
    "simulate": [
        "rounds=1",
        "clients.count=3",
        "clients.models=['mlp']",
        "clients.training.epochs=1",
        "student.model=mlp",
        "data.name=few.npz",
        "data.public.size=20",
        "data.partition={ scheme = 'iid' }",
        "method.student.epochs=2",
    ],
    "distil": [
        "data.name=few.npz",
        "teachers.0.model=mlp",
        "teachers.0.training.epochs=1",
        "student.training.epochs=1",
    ],
}
"""How the experiments that documents run are made small, by command."""


def test_every_block_says_its_language_or_is_a_drawing():
    hidden = [
        str(block)
        for block in fenced.BLOCKS
        if not block.language and re.search(r"^(?:fedkd |\[\w|import )", block.text, re.MULTILINE)
    ]
    assert hidden == []


def over(base: Any, shown: Any) -> Any:
    """What a document shows of a file, with the rest of a file around it."""
    if isinstance(base, dict) and isinstance(shown, dict):
        return {key: over(base.get(key), shown.get(key)) for key in {**base, **shown}}
    if isinstance(base, list) and isinstance(shown, list):
        kept = [over(*each) for each in zip(base, shown, strict=False)]
        return [*kept, *shown[len(base) :]]
    return deepcopy(base if shown is None else shown)


@pytest.mark.parametrize("block", fenced.of("toml"), ids=str)
def test_a_file_or_a_part_of_one_is_valid(block, tmp_path):
    table = tomllib.loads(block.text)
    if {"server", "ca"} <= table.keys():
        (tmp_path / "SITE.toml").write_text(block.text, encoding="utf-8")
        assert Policy.load(tmp_path / "SITE.toml").cap is not None
    elif {"teachers", "knowledge", "way"} & table.keys():
        config.validate(config.Distillation, over(ALONE, table))
    else:
        experiment = over(FEDERATION, table)
        if experiment["data"].get("partition") != {"scheme": "natural"}:
            experiment["clients"].setdefault("count", 10)
        method = config.parse(experiment).method
        config.validate(methods.find(method.name).Params, method.parameters, prefix="method.")


def asked(line: list[str]) -> tuple[list[str], dict[str, Any]]:
    """The command that a line names, and what the command line makes of the rest of it."""
    command, words, name = command_of(cli.app), [w for w in line[1:] if w != "--debug"], []
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        context = click.Context(command)
        said, command, words = command.resolve_command(context, words)
        name.append(said)
    context = command.make_context(" ".join(name), words)
    given = {each.metavar or each.name: context.params.get(each.name) for each in command.params}
    return name, given


def check_fedkd(line: list[str]) -> None:
    """Refuse a command, an option, a config, a key or a method that there is not."""
    name, given = asked(line)
    file = str(given.get("CONFIG") or "CONFIG")
    if file == "CONFIG" or file.endswith(".toml"):
        return
    assert file in packaged.names()
    load = config.load_distillation if name == ["distil"] else config.load
    overrides = list(given.get("override") or ())
    load(file, overrides)
    for word in filter(None, (given.get("methods") or "").split(",")):
        method, *privacy = word.split("+")
        methods.find(method)
        load(file, [*overrides, *(f"privacy.{each}" for each in privacy)])


@pytest.mark.parametrize("block", fenced.of("bash", "console", "sh"), ids=str)
def test_a_command_exists(block):
    makefile = (fenced.ROOT / "Makefile").read_text(encoding="utf-8")
    extras = tomllib.loads((fenced.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for line in fenced.lines(block):
        program = Path(line[0]).name
        if program == "fedkd":
            check_fedkd(line)
        elif program == "make":
            assert all(re.search(rf"^{goal}:", makefile, re.MULTILINE) for goal in line[1:])
        elif program == "pip":
            named = re.findall(r"fedkd\[([\w,]+)\]", " ".join(line))
            assert {n for each in named for n in each.split(",")} <= extras[
                "optional-dependencies"
            ].keys()
        elif program == "python" and line[1] != "-m":
            script = (fenced.ROOT / line[1]).read_text(encoding="utf-8")
            assert [w for w in line if w.startswith("--") and f'"{w}"' not in script] == []
        else:
            assert program in {*ELSEWHERE, "python"}, line
            inside = line.index("fedkd") if "fedkd" in line else len(line)
            if line[inside + 1 : inside + 2] and line[inside + 1] in command_of(cli.app).commands:
                check_fedkd(line[inside:])


def clothes(path: Path) -> None:
    """120 images of the packaged sample, and 30 to test on."""
    with np.load(fenced.ROOT / "fedkd" / "data" / "sample" / "fashion_mnist.npz") as sample:
        few = {name: sample[name][: 120 if "train" in name else 30] for name in sample}
    np.savez(path, **few)


@pytest.mark.parametrize("document", ["README.md", "docs/tour.md"])
def test_what_a_newcomer_types_first_runs(document, run, here):
    """What is cheap of it, in its order, in one folder."""
    clothes(here / "few.npz")
    blocks = [block for block in fenced.of("bash") if block.document == document]
    for line in chain.from_iterable(fenced.lines(block) for block in blocks):
        words = ["simulate", "demo"] if line[:2] == ["make", "demo"] else line[1:]
        if words[:2] in (["simulate", "demo"], ["distil", "distil"]):
            small = [each for value in SMALL[words[0]] for each in ("--set", value)]
            status, _, complaint = run(*words, *small)
            assert status == 0, complaint
        elif words[0] in LISTS or (words[0] == "report" and Path(words[1]).is_dir()):
            assert run(*words)[0] == 0


def weights_of_resnet18(folder: Path) -> dict[str, Any]:
    torch.save({"w": torch.zeros(2)}, folder / "resnet18.pt")
    return {}


def answers_and_features(_folder: Path) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(0)
    z, f = (torch.randn(2, 8, n, generator=draw) for n in (10, 16))
    y = torch.arange(8)
    return {"z_student": z[0], "z_teacher": z[1], "f_student": f[0], "f_teacher": f[1], "y": y}


STAND_INS = {
    "README.md": lambda _folder: {"image": np.zeros((28, 28), np.uint8)},
    "docs/knowledge.md": answers_and_features,
    "docs/models.md": weights_of_resnet18,
}
"""What a document takes for granted: files, and names by what they stand for."""
PYTHON = sorted({block.document for block in fenced.of("python")})


def small_simulate(config: Any, overrides: Any = (), **changes: Any) -> fedkd.Run:
    """`fedkd.simulate`, of an experiment that comes with fedkd in small."""
    said = dict(overrides)
    if isinstance(config, str):
        said |= {
            key: value for key, _, value in (each.partition("=") for each in SMALL["simulate"])
        }
        said = {key: in_toml(value) for key, value in said.items()}
    return running.simulate(config, said, **{"progress": False, **changes})


def in_toml(value: Any) -> Any:
    """A value as TOML has it, or a plain word as it is."""
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value


@pytest.mark.parametrize("document", PYTHON)
def test_the_python_of_a_document_runs(document, here, monkeypatch):
    """Its blocks, one after the other, as one program."""
    clothes(here / "few.npz")
    monkeypatch.syspath_prepend(here)
    monkeypatch.setattr(fedkd, "simulate", small_simulate)
    names = STAND_INS.get(document, lambda _folder: {})(here)
    for block in fenced.of("python"):
        if block.document == document:
            exec(compile(block.text, str(block), "exec"), names)
