"""`fedkd audit`: what is planned and what was spent, for people and for programs."""

import io
import json
import shutil
from contextlib import redirect_stderr

import pytest
import tiny

from fedkd import cli
from fedkd.privacy import accountant
from fedkd.privacy.events import Gaussian
from fedkd.runs.folder import RunFolder

DP = {"privacy.epsilon": 8.0, "privacy.sample_rate": 0.5}
COST = ("unit", "adjacency", "delta", "epsilon", "epsilon_rdp")


@pytest.fixture
def config(rows, here):
    return tiny.write_config(here / "tiny.toml", rows, DP)


@pytest.fixture(scope="module")
def first_run(rows, tmp_path_factory):
    """A run folder as the command leaves it."""
    place, complaint = tmp_path_factory.mktemp("audited"), io.StringIO()
    command = ["fedkd", "simulate", tiny.write_config(place / "tiny.toml", rows, DP)]
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(complaint):
        patch.setattr("sys.argv", [*map(str, command), "--out", str(place / "run")])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    assert (stopped.value.code or 0, complaint.getvalue()) == (0, "")
    return place / "run"


@pytest.fixture
def ran(first_run, here):
    """A run folder, and its summary."""
    folder = here / "ran"
    shutil.copytree(first_run, folder)
    return folder, json.loads((folder / "summary.json").read_text())


def test_a_plan_is_costed_term_by_term(run, config):
    status, out, complaint = run("audit", "plan", config, "--json")
    plan = json.loads(out)
    assert (status, complaint) == (0, "")
    assert set(COST) | {"noise_multiplier", "terms"} <= plan.keys()
    assert [plan[key] for key in COST[:3]] == ["record", "add-remove", 1e-5]
    [term] = plan["terms"]
    assert (term["what"], term["steps"], term["sample_rate"]) == ("teacher training", 4, 0.5)
    event = Gaussian("teacher training", plan["noise_multiplier"], 0.5, 4)
    assert plan["epsilon"] == pytest.approx(accountant.epsilon([event], 1e-5))
    assert plan["epsilon_rdp"] == pytest.approx(accountant.epsilon_rdp([event], 1e-5))
    assert 7.9 < plan["epsilon"] <= 8.0 < plan["epsilon_rdp"]


def test_a_plan_is_a_table_for_people(run, config):
    equal = ("method.name=fedavg", 'clients.models=["mlp"]', "student.model=mlp")
    changes = [part for change in equal for part in ("--set", change)]
    status, out, _ = run("audit", "plan", config, *changes)
    assert status == 0
    for word in ("teacher training", "example count", "laplace", "of 8 at delta 1e-05", "by RDP"):
        assert word in out


def test_a_plan_over_its_budget_is_shown_with_the_noise_that_it_needs(run, config):
    status, out, complaint = run("audit", "plan", config, "--set", "privacy.noise_multiplier=0.7")
    assert status == 4
    assert "teacher training" in out
    assert "raise the noise multiplier to" in complaint
    assert len(complaint.splitlines()) == 1


def test_a_plan_without_a_budget_says_no_dp(run, rows, here):
    bare = tiny.write_config(here / "bare.toml", rows)
    status, out, complaint = run("audit", "plan", bare)
    assert (status, out) == (2, "")
    assert "NO DP" in complaint


def test_what_was_spent_before_counts_in_a_plan(run, config, ran):
    folder, summary = ran
    ledger = folder / "checkpoints" / "clients" / "client-0000" / "ledger.db"
    plan = json.loads(run("audit", "plan", config, "--json")[1])
    status, _, complaint = run("audit", "plan", config, "--ledger", ledger, "--json")
    assert status == 4
    assert "is taken already" in complaint
    roomy = ("--set", "privacy.epsilon=16")
    fresh = json.loads(run("audit", "plan", config, *roomy, "--json")[1])
    used = json.loads(run("audit", "plan", config, *roomy, "--ledger", ledger, "--json")[1])
    assert used["noise_multiplier"] > fresh["noise_multiplier"]
    assert used["epsilon"] <= 16
    assert summary["privacy"]["epsilon"] == pytest.approx(plan["epsilon"])


def test_a_plan_counts_the_shared_ledger_that_its_run_would_and_no_other(run, config, ran, here):
    folder, _ = ran
    spent = folder / "checkpoints" / "clients" / "client-0000" / "ledger.db"
    shared = ("--set", f"privacy.ledger={here / 'shared'}", "--set", "privacy.epsilon=16", "--json")

    def planned(place):
        place.parent.mkdir(parents=True)
        for suffix in ("", ".seal", ".key"):
            shutil.copy(f"{spent}{suffix}", f"{place}{suffix}")
        status, out, complaint = run("audit", "plan", config, *shared)
        shutil.rmtree(here / "shared")
        return status, complaint, json.loads(out or "{}").get("enforced_by")

    others = [here / "shared" / name for name in ("server.db", "mine.db", "old/ledger.db")]
    assert {planned(place) for place in others} == {(0, "", "PLD")}
    assert planned(here / "shared" / "ledger.db") == (0, "", "RDP filter")
    status, complaint, _ = planned(here / "shared" / "client-0000.db")
    assert status == 2
    assert "holds client-0000.db, a ledger of an earlier version: what it counts is" in complaint


def test_a_run_does_not_forget_the_ledgers_of_an_earlier_version(run, config, here):
    (here / "shared").mkdir()
    (here / "shared" / "client-0003.db").touch()
    shared = ("--set", f"privacy.ledger={here / 'shared'}", "--out", here / "never")
    status, out, complaint = run("simulate", config, *shared)
    assert (status, out) == (2, "")
    assert "holds client-0003.db, a ledger of an earlier version" in complaint
    assert [each.name for each in (here / "shared").iterdir()] == ["client-0003.db"]
    assert not (here / "never").exists()


def test_a_runs_ledgers_say_what_was_spent_of_each_client(run, ran):
    folder, summary = ran
    status, out, complaint = run("audit", "ledger", folder, "--json")
    told = json.loads(out)
    assert (status, complaint) == (0, "")
    assert set(COST) | {"budget", "chain", "events"} <= told.keys()
    assert (told["chain"], told["budget"], told["committed"]) == ("intact", 8.0, True)
    assert told["epsilon"] == pytest.approx(summary["privacy"]["epsilon"])
    assert told["epsilon_rdp"] > told["epsilon"]
    assert len(told["accounts"]) == 4
    [event] = told["events"]
    assert (event["what"], event["steps"]) == ("teacher training", 4)
    assert [release["state"] for release in told["releases"]] == ["sent", "sent"]
    assert all(release["sampler"] == "Poisson" for release in told["releases"])
    assert all(release["uncovered"] == [] for release in told["releases"])


def test_a_ledger_is_a_table_for_people(run, ran):
    folder, _ = ran
    ledger = folder / "checkpoints" / "clients" / "client-0000" / "ledger.db"
    status, out, _ = run("audit", "ledger", ledger)
    assert status == 0
    for word in ("intact", "by PLD", "committed", "Poisson", "tiny, round 2"):
        assert word in out


def test_a_changed_ledger_is_said_so_and_exits_with_four(run, ran):
    folder, _ = ran
    ledger = folder / "checkpoints" / "clients" / "client-0002" / "ledger.db"
    content = bytearray(ledger.read_bytes())
    content[len(content) // 2] ^= 1
    ledger.write_bytes(content)
    status, out, complaint = run("audit", "ledger", folder, "--json")
    assert status == 4
    assert json.loads(out)["chain"] != "intact"
    assert "client-0002" in complaint


def test_an_old_copy_is_found_by_what_the_server_saw(run, rows, here):
    class Copies(tiny.Quiet):
        def round_ends(self, record):
            if record["round"] == 1:
                shutil.copytree(mine, here / "old")

    from fedkd.federation import engines
    from fedkd.federation.prepare import prepare

    prepared = prepare(tiny.experiment(rows, DP))
    folder = RunFolder(here / "run")
    folder.open(prepared.experiment, prepared.data, resume=False)
    mine = folder.states / "client-0001"
    engines.simulate(prepared, folder, Copies(), states=folder.states)
    shutil.rmtree(mine)
    shutil.copytree(here / "old", mine)
    status, _, complaint = run("audit", "ledger", mine / "ledger.db")
    assert (status, complaint) == (0, "")  # on its own it is a good ledger
    status, _, complaint = run("audit", "ledger", here / "run")
    assert status == 4
    assert "the server saw" in complaint


@pytest.mark.parametrize("what", ["nothing", "a folder without any", "a text", "a run without dp"])
def test_what_is_no_ledger_is_one_line(run, rows, here, what):
    path = here / "thing"
    if what == "a folder without any":
        path.mkdir()
    if what == "a text":
        path.write_text("no ledger")
    if what == "a run without dp":
        bare = tiny.write_config(here / "bare.toml", rows, {"rounds": 1})
        run("simulate", bare, "--out", path)
    status, out, complaint = run("audit", "ledger", path)
    assert status == 2
    assert len(complaint.splitlines()) == 1
    assert "thing" in complaint
    assert out == ""


def test_a_budget_that_does_not_allow_a_run_exits_with_four_and_leaves_nothing(run, config, here):
    status, _, complaint = run("simulate", config, "--set", "privacy.noise_multiplier=0.7")
    assert status == 4
    assert "makes the plan cost epsilon" in complaint
    assert not (here / "runs").exists()


def test_the_owner_of_the_data_may_allow_more(run, ran, config):
    folder, _ = ran
    ledger = folder / "checkpoints" / "clients" / "client-0000" / "ledger.db"
    before = json.loads(run("audit", "ledger", ledger, "--json")[1])
    assert before["allowed"] == 8.0
    status, out, complaint = run("audit", "allow", ledger, "16")
    assert (status, complaint) == (0, "")
    assert "epsilon 16 is allowed" in out
    assert json.loads(run("audit", "ledger", ledger, "--json")[1])["allowed"] == 16.0


@pytest.mark.parametrize("epsilon", ["0", "nan", "inf"])
def test_no_number_is_no_budget(run, ran, epsilon):
    folder, _ = ran
    ledger = folder / "checkpoints" / "clients" / "client-0000" / "ledger.db"
    content = ledger.read_bytes()
    status, _, complaint = run("audit", "allow", ledger, epsilon)
    assert status == 2
    assert "expected a finite number > 0" in complaint
    assert ledger.read_bytes() == content
