"""The command line: what it prints, how it exits, and what it leaves behind."""

import gzip
import importlib.util
import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

import fedkd
from fedkd import methods, tasks

SECRET = "Patient4711"


def test_simulate_writes_a_run_folder_and_says_what_came_out(run, rows, here):
    config = tiny.write_config(here / "tiny.toml", rows)
    status, out, complaint = run("simulate", config)
    assert (status, complaint) == (0, "")
    assert re.match(r"tiny: fedmd, seed 7, two rounds\nround +1 .*student", out)
    assert re.search(r"^round +2 ", out, re.MULTILINE)
    assert "NO DP" in out
    assert str(here / "runs" / "tiny" / "report.html") in out
    assert {path.name for path in (here / "runs" / "tiny").iterdir()} == {
        ".lock",
        "checkpoints",
        "config.toml",
        "environment.json",
        "live.json",
        "partition.json",
        "report.html",
        "rounds.jsonl",
        "student.safetensors",
        "summary.json",
    }


def test_an_unscaled_table_is_warned_of_and_its_remedy_makes_a_student(run, here):
    draw = np.random.default_rng(2)
    y = np.arange(400) % 2
    x = np.stack([1000 + 300 * (3 * y + draw.normal(size=400)), draw.normal(size=400)], axis=1)
    lines = [f"{a:.4f};{b:.4f};{'ill' if c else 'well'}" for (a, b), c in zip(x, y, strict=True)]
    (here / "table.csv").write_text("\n".join(["area;texture;label", *lines]) + "\n")
    learns = {"method.name": "fedavg", "clients.models": [tiny.BASE["student"]["model"]]}
    learns |= {"rounds": 5, "student.model": tiny.BASE["student"]["model"]}
    config = tiny.write_config(here / "tiny.toml", here / "table.csv", learns)
    status, _, complaint = run("simulate", config, "--out", "raw")
    assert status == 0
    assert re.fullmatch(
        r"warning: table\.csv: column 'area' has values of about .e\+03, .*'public'\n", complaint
    )
    assert run("simulate", config, "--set", "data.scale=public", "--out", "scaled")[::2] == (0, "")
    raw, scaled = (
        json.loads((here / out / "summary.json").read_text())["student"]["accuracy"]
        for out in ("raw", "scaled")
    )
    assert raw < 0.7 < 0.85 < scaled
    told = json.loads((here / "scaled" / "partition.json").read_text())["scale"]
    assert set(told) == {"area", "texture"}
    assert run("simulate", "scaled/config.toml", "--out", "scaled", "--resume")[0] == 0
    assert run("export", "raw", "--format", "torchscript")[::2] == (0, "")  # no warnings again
    status, out, _ = run("export", "scaled", "--format", "torchscript")
    assert status == 0
    assert "agrees with the original" in out
    assert "inputs: 2 columns scaled by inputs.scale in scaled/summary.json" in out
    summary = json.loads((here / "scaled" / "summary.json").read_text())
    assert summary["inputs"]["scale"] == told


def test_set_changes_one_value(run, rows, here):
    config = tiny.write_config(here / "tiny.toml", rows)
    changes = ["--set", "rounds=1", "--set", "method.name=local", "--set", "clients.count = 2"]
    assert run("simulate", config, *changes, "--out", here / "run")[0] == 0
    summary = json.loads((here / "run" / "summary.json").read_text())
    assert [summary[key] for key in ("method", "rounds", "clients")] == ["local", 1, 2]


def test_the_runs_own_config_runs_again_to_the_same_bits(run, rows, here):
    config = tiny.write_config(here / "tiny.toml", rows)
    run("simulate", config, "--out", "one")
    assert run("simulate", "one/config.toml", "--out", "two")[0] == 0
    assert tiny.student_hash(here / "one") == tiny.student_hash(here / "two")


MISTAKES = {
    "unknown key": (["--set", "clients.cuont=3"], "clients.count"),
    "wrong value": (["--set", "rounds=0"], "rounds"),
    "override without value": (["--set", "rounds"], "rounds"),
    "unknown model": (["--set", "student.model=lenet"], "lenet5"),
    "unknown method": (["--set", "method.name=fedmdd"], "fedmd"),
    "unlike models": (["--set", "method.name=fedavg"], "fedavg"),
    "rows for a CNN": (["--set", "clients.models=['lenet5']"], "lenet5"),
    "more clients than samples": (["--set", "clients.count=1000"], "1000"),
    "missing data": (["--set", "data.name=nowhere.npz"], "nowhere.npz"),
    "corrupt data": (["--set", "data.name=mnist"], "train-images-idx3-ubyte.gz"),
    "labels out of range": (["--set", "data.name=wrong.npz"], "y_test is 9 at index 17"),
    "folder that exists": (["--out", "there"], "there"),
    "folder under a file": (["--out", "tiny.toml/run"], "tiny.toml/run"),
}


def test_help_of_resume_says_what_each_command_goes_on_after(run, here):
    told = [" ".join(run(c, "--help")[1].split()) for c in ("simulate", "distil")]
    told.append(" ".join(run("deploy", "submit", "--help")[1].split()))
    assert [re.search(r"last finished (\w+)", each)[1] for each in told] == [
        "round",
        "stage",
        "round",
    ]
    assert ["more rounds" in each for each in told] == [True, False, False]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_no_folder(run, rows, here, monkeypatch, mistake):
    config = tiny.write_config(here / "tiny.toml", rows, {"method.name": "feddf"})
    arrays = dict(np.load(rows))
    np.savez(here / "wrong.npz", **arrays | {"y_test": np.where(np.arange(120) == 17, 9, 0)})
    (here / "mnist").mkdir()
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (here / "mnist" / f"{part}-ubyte.gz").write_bytes(gzip.compress(b"no idx file"))
    monkeypatch.setenv("FEDKD_DATA", str(here))
    (here / "there").mkdir()
    before = sorted(here.rglob("*"))
    arguments, words = MISTAKES[mistake]
    status, out, complaint = run("simulate", config, *arguments)
    assert (status, out) == (2, "")
    assert complaint.startswith("error: ")
    assert complaint.count("\n") == 1
    assert words in complaint
    assert sorted(here.rglob("*")) == before


def test_ray_that_is_not_installed_is_a_mistake(run, rows, here, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: (name != "ray" and find(name)) or None
    )
    config = tiny.write_config(here / "tiny.toml", rows, {"engine.kind": "ray"})
    status, _, complaint = run("simulate", config)
    assert status == 2
    assert "pip install 'fedkd[ray]'" in complaint
    assert not (here / "runs").exists()


def test_a_config_that_is_not_there_is_a_mistake(run, here):
    status, _, complaint = run("simulate", "nowhere.toml")
    assert status == 2
    assert complaint.count("\n") == 1
    assert "nowhere.toml" in complaint


@pytest.fixture
def failing(rows, here, monkeypatch):
    """An experiment of which every round fails, by a user's own method."""
    (here / "failing.py").write_text(
        "from fedkd.methods.fedmd import FedMD\n"
        "class Failing(FedMD):\n"
        "    def client(self, ctx, broadcast):\n"
        f"        raise ValueError('{SECRET}')\n"
    )
    monkeypatch.syspath_prepend(str(here))
    return tiny.write_config(here / "failing.toml", rows, {"method.name": "failing:Failing"})


def test_a_quorum_that_is_missed_exits_with_one_and_one_line(run, failing, here):
    status, out, complaint = run("simulate", failing)
    assert status == 1
    line = (
        "error: round 1: 0 of 4 clients answered and clients.quorum = 0.5 asks for 2: "
        f"ValueError: {SECRET} (4)\n"  # in a simulation there is nobody to hide it from
    )
    assert complaint == line
    assert SECRET not in out
    assert (here / "runs" / "tiny" / "rounds.jsonl").read_text() == ""


@pytest.fixture
def bare_root(monkeypatch):
    """The root logger as a program finds it, without pytest's handlers."""
    root = logging.getLogger()
    level = root.level
    monkeypatch.setattr(root, "handlers", [])
    yield
    root.setLevel(level)


@pytest.mark.usefixtures("bare_root")
def test_debug_shows_tracebacks_of_this_machines_clients_as_well(run, failing):
    status, _, complaint = run("--debug", "simulate", failing)
    assert status == 1
    assert "QuorumError" in complaint
    assert "Traceback" in complaint
    assert SECRET in complaint


@pytest.fixture
def own_module(rows, here):
    """An experiment, and beside it a module of one's own, which is on no path."""
    place = here / "configs"
    place.mkdir()
    (place / "besides.py").write_text(
        "from fedkd.methods.fedmd import FedMD\n"
        "from torch import nn\n"
        "class Own(FedMD): ...\n"
        "def net(shape, classes): return nn.Linear(shape[0], classes)\n"
    )
    changes = {"method.name": "besides:Own", "rounds": 1, "student.model": "besides:net"}
    yield tiny.write_config(place / "tiny.toml", rows, changes)
    sys.modules.pop("besides", None)


@pytest.mark.parametrize("command", [("simulate",), ("audit", "plan"), ("audit", "teacher")])
def test_a_module_beside_the_experiment_is_found(run, own_module, here, command):
    protected = ("--set", "privacy.epsilon=8", "--set", "privacy.noise_multiplier=1.5")
    more = protected if command[0] == "audit" else ()
    more = (*more, "--canaries", "20") if command[-1] == "teacher" else more
    status, _, complaint = run(*command, own_module, *more)
    assert (status, complaint) == (0, "")


UNUSED = (
    "dp_accounting", "opacus", "pandas", "ray", "scipy", "sklearn", "sympy", "torch._dynamo",
    "torchmetrics", "torchvision", "transformers",
)  # fmt: skip


def test_a_simulation_runs_nothing_that_nobody_named_and_imports_nothing_of_no_use(
    own_module, here
):
    for optional in ("pandas", "triton", "tqdm", "tabulate"):  # what torch and others try
        (own_module.parent / f"{optional}.py").write_text(f"open({str(here / 'ran')!r}, 'w')")
    script = (
        f"import sys; sys.argv = ['fedkd', 'simulate', {str(own_module)!r}, '--out', 'run']\n"
        "from fedkd.cli import main\n"
        "try: main()\n"
        "except SystemExit as ended: assert not ended.code, ended.code\n"
        f"found = set({UNUSED!r}) & sys.modules.keys()\n"
        "sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=here, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (here / "run" / "report.html").is_file()
    assert not (here / "ran").exists()


def test_a_site_or_server_imports_nothing_from_where_an_experiment_stands(run, own_module, here):
    status, _, complaint = run("deploy", "app", own_module, "--out", "app")
    assert status == 2
    assert "'besides:Own' cannot be imported" in complaint


def test_a_runs_student_is_exported_where_the_module_is(run, own_module, here, monkeypatch):
    assert run("simulate", own_module, "--out", "run")[0] == 0
    sys.modules.pop("besides")
    status, _, complaint = run("export", "run", "--format", "torchscript")
    assert status == 2
    assert complaint.endswith("; start the command in the folder that has the module\n")
    monkeypatch.chdir(own_module.parent)
    assert run("export", here / "run", "--format", "torchscript")[0] == 0


def test_compare_prints_a_table_and_writes_one_report(run, rows, here):
    config = tiny.write_config(here / "tiny.toml", rows, {"rounds": 1})
    status, out, complaint = run(
        "compare", config, "--methods", "fedmd, local", "--seeds", "2", "--out", "both"
    )
    assert (status, complaint) == (0, "")
    for method in ("fedmd", "local"):
        assert re.search(rf"{method} +2 +[\d.]+ ± [\d.]+", out)
    assert str(here / "both" / "report.html") in out
    assert len(list((here / "both").glob("*/summary.json"))) == 4

    refused, _, complaint = run("compare", config, "--methods", "fedmd", "--out", "both")
    assert refused == 2
    assert "--resume" in complaint


@pytest.mark.parametrize("chosen", ["fedmd,fedavgg", "fedmd,fedavg", "fedmd,dense", "", " , "])
def test_compare_refuses_a_bad_method_before_anything_runs(run, rows, here, chosen):
    config = tiny.write_config(here / "tiny.toml", rows, {"rounds": 1})
    status, out, complaint = run("compare", config, "--methods", chosen, "--out", "all")
    assert (status, out) == (2, "")
    assert complaint.count("\n") == 1
    assert not (here / "all").exists()


def test_report_is_written_again_for_one_run_and_anew_for_several(run, rows, here):
    config = tiny.write_config(here / "tiny.toml", rows, {"rounds": 1})
    for seed in (0, 1):
        run("simulate", config, "--set", f"seed={seed}", "--out", f"run{seed}")
    (here / "run0" / "report.html").unlink()
    status, out, _ = run("report", "run0")
    assert status == 0
    assert str(here / "run0" / "report.html") in out
    assert "<html" in (here / "run0" / "report.html").read_text()

    status, out, _ = run("report", "run0", "run1", "--out", "both.html")
    assert status == 0
    assert re.search(r"fedmd +2 ", out)
    assert "<html" in (here / "both.html").read_text()
    assert 'href="../both.html"' in (here / "run1" / "report.html").read_text()

    status, out, _ = run("report", "run0", "--format", "md")
    assert (status, out) == (0, f"report: {here / 'run0' / 'report.md'}\n")
    status, _, _ = run("report", "run0", "run1", "--format", "md", "--out", "paper/both.md")
    assert status == 0
    assert "[run0](../run0/report.html)" in (here / "paper" / "both.md").read_text()
    assert list((here / "paper" / "both-charts").glob("*.svg"))


def test_report_on_no_run_is_a_mistake(run, here):
    status, _, complaint = run("report", here)
    assert status == 2
    assert "config.toml" in complaint


def test_methods_are_listed_for_people_and_for_programs(run):
    status, out, _ = run("methods", "--json")
    cards = json.loads(out)
    assert status == 0
    assert list(cards) == list(methods.BUILT_IN)
    assert len(cards) == 33
    assert all(card["paper"] and card["sends"] and card["returns"] for card in cards.values())
    _, out, _ = run("methods")
    assert all(name in out and card["paper"] in out for name, card in cards.items())


def test_tasks_are_listed_with_their_scores(run):
    status, out, _ = run("tasks", "--json")
    assert status == 0
    assert list(json.loads(out)) == list(tasks.BUILT_IN)
    assert json.loads(out)["classification"]["default"] == ["accuracy"]
    _, out, _ = run("tasks")
    assert all(score in out for score in tasks.find("classification").scores)


def test_data_sets_are_listed_with_where_they_were_looked_for(run, here, monkeypatch):
    monkeypatch.setenv("FEDKD_DATA", str(here))
    status, out, _ = run("data", "--json")
    sets = json.loads(out)
    assert status == 0
    known = {"fashion-mnist-sample", "fashion-mnist", "mnist", "heart-disease", "drawn-figures"}
    known |= {"cifar-10", "cifar-100", "svhn", "tiny-imagenet"}
    splits = ("byclass", "bymerge", "balanced", "letters", "digits", "mnist")
    assert set(sets) == known | {f"emnist-{split}" for split in splits}
    assert sets["emnist-letters"][0] == {"folder": str(here / "emnist"), "complete": False}
    assert sets["fashion-mnist-sample"][0]["complete"]
    assert sets["mnist"][0] == {"folder": str(here / "mnist"), "complete": False}
    _, out, _ = run("data")
    assert str(here / "mnist") in out
    assert "heart-disease  not here: get it first, see docs/data.md" in out


HELP = {
    "simulate": ("--set", "--out", "--resume", "The experiment: a TOML file"),
    "distil": ("The experiment: a TOML file",),
    "compare": ("--methods", "--seeds", "--audit", "--set", "--out", "--resume"),
    "sweep": ("--grid", "--seeds", "--set", "--out", "--resume", "--on"),
    "report": ("--out", "--format", "Run folders."),
    "export": ("A run folder.",),
    "watch": ("--state", "--port", "--no-browser", "--json", "one that is not there yet is waited"),
    "methods": ("--json",),
    "tasks": ("--json",),
    "data": ("--json", "check"),
    "data check": ("--task", "--label", "--json", "A file or a folder of data."),
    "init": ("--data", "--task", "--label", "--public", "--out", "--json"),
    "audit plan": ("--set", "--ledger", "--json", "The experiment: a TOML file"),
    "audit ledger": ("--json", "a folder of ledgers, or a run's folder"),
    "audit allow": ("EPSILON", "The ledger's file.", "The most that each account may spend."),
    "deploy submit": ("what 'fedkd deploy share' wrote; else made anew from [data].",),
    "deploy app": ("else made anew from [data].",),
    "deploy client": ("The site's own file",),
}
"""Of each command, its options, and what it says of its arguments."""


@pytest.mark.parametrize("columns", [60, 200])
@pytest.mark.parametrize("command", HELP)
def test_help_mentions_every_option_and_argument(run, command, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    status, out, _ = run(*command.split(), "--help")
    text = " ".join(re.sub("[│╭╮╰╯─]", " ", out).split()).lower()
    assert status == 0
    assert [each for each in HELP[command] if each.lower() not in text] == []


def test_what_stands_in_brackets_is_printed_as_it_is(run, here, monkeypatch):
    monkeypatch.setenv("FEDKD_DATA", str(here / "sets[bold]"))
    status, out, _ = run("data")
    assert status == 0
    assert "sets[bold]" in out


def test_help_lists_the_commands_and_version_is_the_packages(run):
    status, out, _ = run("--help")
    assert status == 0
    assert [command for command in HELP if command.split()[0] not in out] == []
    assert run("--version") == (0, f"fedkd {fedkd.__version__}\n", "")


def test_a_mistyped_command_is_answered_with_the_right_one(run):
    status, _, complaint = run("simulat")
    assert status == 2
    assert "simulate" in complaint


def test_help_waits_for_neither_torch_nor_flower():
    script = (
        "import sys; sys.argv = ['fedkd', '--help']\n"
        "from fedkd.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "found = {'torch', 'flwr', 'numpy', 'matplotlib', 'ray'} & set(sys.modules)\n"
        "sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_sample_experiments_of_the_repository_are_valid():
    from fedkd.config import load, load_distillation, read
    from fedkd.learning import ways

    configs = sorted((Path(__file__).parents[2] / "fedkd" / "configs").glob("*.toml"))
    assert configs
    for config in configs:
        if "clients" in read(config):
            methods.resolve(load(config))
        else:
            ways.resolve(load_distillation(config))


def test_a_config_for_the_other_command_names_that_command(run, here):
    configs = Path(__file__).parents[2] / "fedkd" / "configs"
    for command, config, other in [
        ("simulate", "distil.toml", "fedkd distil"),
        ("distil", "demo.toml", "fedkd simulate"),
    ]:
        status, _, err = run(command, str(configs / config))
        assert status == 2
        assert f"run it with {other}" in err
    assert not (here / "runs").exists()


def test_reports_that_cannot_be_are_one_line(run, rows, here):
    config = tiny.write_config(here / "tiny.toml", rows, {"rounds": 1})
    run("simulate", config, "--out", "a")
    run("simulate", config, "--out", "b", "--set", "clients.training.epochs=2")
    for arguments, complaint in [
        (("a", "a"), "given twice"),
        (("a", "--out", "one.html"), "--out is for several runs"),
        (("a", "b", "--out", "b"), "is a folder"),
        (("a", "--format", "md", "--out", "b"), "is a folder"),
    ]:
        status, _, error = run("report", *arguments)
        assert status == 2
        assert complaint in error
        assert error.count("\n") == 1
    status, out, _ = run("report", "a", "b", "--out", "new/both.html")
    assert status == 0
    assert "Not like for like" in out
    assert (here / "new" / "both.html").exists()


def test_a_run_folder_given_for_a_config_says_what_was_meant(run, rows, here):
    config = tiny.write_config(here / "tiny.toml", rows, {"rounds": 1})
    run("simulate", config, "--out", "a")
    status, _, error = run("simulate", "a", "--resume")
    assert status == 2
    assert "did you mean 'a/config.toml'?" in error
