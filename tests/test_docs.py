"""What the documents show must run as it stands there."""

import re
import tomllib
from itertools import chain
from pathlib import Path
from typing import get_args

import torch
from rich.console import Console

from fedkd import config, methods, models
from fedkd.cli.deploy import deploy
from fedkd.config.robust import AnswersRule, ModelsRule
from fedkd.data import NAMES
from fedkd.federation.deploy.site import Policy
from fedkd.federation.deploy.site_file import Allow, Cap, Limits, OwnData, Site
from fedkd.federation.prepare import prepare
from fedkd.jobs.simulate import simulate
from fedkd.learning import augment, forms, ways
from fedkd.learning.ways.prepare import prepare as prepare_distillation
from fedkd.methods.core.base import Method
from fedkd.reports.display import Display

ROOT = Path(__file__).parents[1]


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_experiment_in_the_readme_is_the_one_that_the_demo_runs():
    [shown] = blocks("README.md", "toml")
    mine = config.parse(tomllib.loads(shown))
    demo = config.load(ROOT / "fedkd" / "configs" / "demo.toml")
    assert mine.data == demo.data
    assert mine.clients.models == demo.clients.models
    assert (mine.method.name, mine.student, mine.rounds) == ("fedmd", demo.student, demo.rounds)
    prepare(mine)


def test_the_method_in_the_tutorial_trains_a_student(tmp_path, monkeypatch):
    tutorial = (ROOT / "docs" / "tutorials" / "write_a_method.md").read_text(encoding="utf-8")
    [source] = re.findall(r"^%%writefile votes.py\n(.*?)^```", tutorial, flags=re.M | re.S)
    (tmp_path / "votes.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    experiment = config.load(
        ROOT / "fedkd" / "configs" / "demo.toml",
        [
            "method.name=votes:Votes",
            "rounds=1",
            "clients.count=3",
            "clients.training.epochs=2",
            "data.public.size=1000",
            'clients.models=["mlp"]',
            "student.model=mlp",
        ],
    )
    with Display(Console(quiet=True), title="votes", rounds=1) as display:
        summary = simulate(experiment, tmp_path / "run", display)
    assert summary["student"]["accuracy"] > 0.4  # chance is 0.1
    assert summary["released"][0]["field"] == "votes"


def test_every_method_and_its_parameters_are_documented():
    documented = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    exchanged, parameters_of = documented.split("\n## Parameters\n")
    assert [name for name in methods.BUILT_IN if f"`{name}`" not in exchanged] == []
    assert all(f"| `{name}` |" in parameters_of for name in methods.BUILT_IN)
    for name in methods.BUILT_IN:
        parameters = methods.find(name).Params.model_fields
        assert all(f"`{parameter}`" in documented for parameter in parameters)


def test_every_form_stands_in_the_document_as_it_is():
    documented = (ROOT / "docs" / "distil.md").read_text(encoding="utf-8")
    for name, form in forms.BUILT_IN.items():
        [row] = re.findall(rf"^\| `{name}` \|(.*)\|$", documented, flags=re.MULTILINE)
        looks_at, couples, weight, others, _ = (cell.strip() for cell in row.split("|"))
        defaults = form.Params().model_dump()
        assert looks_at.startswith(form.looks_at)
        assert couples == ("yes" if form.couples else "no")
        assert weight.split(" (")[0] == f"{defaults.pop('weight'):g}"
        told = re.findall(r"`(\w+)` \((\w[\w., ]*)\)", others)
        lists = {k: v if isinstance(v, tuple) else (v,) for k, v in defaults.items()}
        assert told == [(k, ", ".join(f"{each:g}" for each in v)) for k, v in lists.items()]


def test_every_way_and_its_parameters_are_documented():
    documented = (ROOT / "docs" / "distil.md").read_text(encoding="utf-8")
    for name, way in ways.BUILT_IN.items():
        [row] = re.findall(rf"^\| `{name}` \|(.*)$", documented, flags=re.MULTILINE)
        assert all(f"`{parameter}`" in row for parameter in way.Params.model_fields)


def test_the_distillation_in_the_document_is_complete():
    shown = blocks("docs/distil.md", "toml")[0]
    told = config.validate(config.Distillation, tomllib.loads(shown))
    assert prepare_distillation(told).distillation.knowledge[1].teacher == ("flatten",)


def test_every_partition_and_data_set_is_documented():
    documented = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    kinds = get_args(get_args(config.Partition)[0])
    schemes = [get_args(kind.model_fields["scheme"].annotation) for kind in kinds]
    names = [*chain.from_iterable(schemes), *NAMES]
    assert all(f"| `{name}` |" in documented for name in names)


def test_every_rule_and_key_against_clients_that_lie_is_documented():
    documented = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")
    [shown] = re.findall(r"^```toml\n\[robust\]\n(.*?)^```", documented, flags=re.M | re.S)
    assert [line.split(" ")[0] for line in shown.splitlines()] == list(config.Robust.model_fields)
    assert config.validate(config.Robust, tomllib.loads(shown)) == config.Robust()
    rules = {*get_args(AnswersRule), *get_args(ModelsRule)}
    assert [rule for rule in rules if f"| `{rule}` |" not in documented] == []
    combining = [name for name in methods.BUILT_IN if methods.find(name).card.combines]
    assert [name for name in combining if f"`{name}`" not in documented] == []


def test_every_form_and_key_of_answers_on_the_wire_is_documented():
    documented = (ROOT / "docs" / "bytes.md").read_text(encoding="utf-8")
    [shown] = re.findall(r"^```toml\n\[exchange\]\n(.*?)^```", documented, flags=re.M | re.S)
    assert config.validate(config.Exchange, tomllib.loads(shown)).delta
    forms = get_args(config.Exchange.model_fields["answers"].annotation)
    names = [*forms, *config.Exchange.model_fields]
    assert [name for name in names if f"`{name}`" not in documented] == []
    writing = [n for n in methods.BUILT_IN if methods.find(n).answers is not Method.answers]
    assert [name for name in writing if f"`{name}`" not in documented] == []


def test_no_document_waits_for_its_figures():
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        waiting = r"\b(?:DEMO_OUTPUT|TODO|FIGURES|[A-Z]+_(?:TABLE|LINE))\b"
        assert not re.findall(waiting, path.read_text("utf-8"))


def test_the_sites_file_in_the_documents_is_one_and_shows_every_line(tmp_path):
    [shown] = blocks("docs/deploy.md", "toml")
    (tmp_path / "SITE.toml").write_text(shown)
    policy = Policy.load(tmp_path / "SITE.toml")
    assert policy.cap is not None
    assert policy.format == "csv"
    sections = [Site, OwnData, Allow, Cap, Limits]
    keys = {key for section in sections for key in section.model_fields} - {"format"}
    assert [key for key in keys if not re.search(rf"\b{key}\b(?: =|\])", shown)] == []


def test_the_models_in_the_documents_are_models():
    [shown] = blocks("docs/models.md", "toml")
    mine = config.parse({"name": "docs", "method": {"name": "fedmd"}, **tomllib.loads(shown)})
    resnet = mine.clients.models[2]
    assert (resnet.name, resnet.weights.head) == ("torchvision/resnet18", "new")
    names = [*models.NAMES, *(f"{family}/" for family in models.hub.FAMILIES)]
    documented = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert [name for name in names if f"`{name}" not in documented] == []
    own = {}
    exec(blocks("docs/models.md", "python")[1], own)
    assert own["Net"](num_classes=4)(torch.zeros(2, 3, 9, 9)).shape == (2, 4)


def test_every_deploy_command_in_documents_and_examples_exists():
    documents = [*map(ROOT.joinpath, ("docs/deploy.md", "docs/containers.md", "README.md"))]
    examples = [path for path in (ROOT / "examples/deploy").rglob("*") if path.is_file()]
    texts = [path.read_text("utf-8") for path in (*documents, *examples)]
    shown = set(re.findall(r"fedkd deploy ([a-z]+)", "\n".join(texts)))
    assert shown == {command.callback.__name__ for command in deploy.registered_commands}


def test_every_key_of_a_training_and_every_change_of_inputs_is_documented():
    documented = (ROOT / "docs" / "learning.md").read_text(encoding="utf-8")
    names = [*config.Optimisation.model_fields, *config.OPTIMISERS]
    assert [name for name in names if f"`{name}`" not in documented] == []
    for name, change in augment.BUILT_IN.items():
        [row] = re.findall(rf"^\| `{name}` \|(.*)\|$", documented, flags=re.MULTILINE)
        told = re.findall(r"`(\w+)` \(([\d.]+)\)", row.split("|")[0])
        assert told == [(key, f"{value:g}") for key, value in change.Params().model_dump().items()]
        assert (row.split("|")[1].strip() == "images") == change.images
