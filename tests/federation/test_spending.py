"""Private teachers from end to end: the budget is enforced before data is touched, and lasts."""

import json
import logging
import shutil
import sys

import leaky
import pytest
import tiny
import torch

from fedkd import errors
from fedkd.config import MethodChoice
from fedkd.errors import BudgetError, ConfigError, FederationError
from fedkd.federation import engines, wire
from fedkd.federation.client import ClientParty, client_app
from fedkd.federation.disk_state import DiskState
from fedkd.federation.inprocess import InProcessGrid
from fedkd.federation.prepare import prepare
from fedkd.federation.rounds import federate
from fedkd.federation.store.state_store import StateStore
from fedkd.jobs.simulate import simulate
from fedkd.methods.core import accounting
from fedkd.privacy import accountant
from fedkd.privacy.budget import Budget
from fedkd.privacy.events import Gaussian, Laplace
from fedkd.privacy.ledger import OWNERS, Ledger, Part
from fedkd.runs import ledgers
from fedkd.runs.folder import RunFolder

REFUSED = "its privacy budget does not allow the round"
DP = {"privacy.epsilon": 8.0, "privacy.sample_rate": 0.5}
NOISY = {**DP, "privacy.noise_multiplier": 1.0}
"""Two rounds cost 6.7 of the 8. To look for the noise takes seconds, and is other tests' matter."""


def spend_before(prepared, client, path, events, epsilon=8.0):
    """Somebody else's spending of the same client's data."""
    budget = Budget(epsilon, prepared.experiment.privacy.delta)
    account = Ledger(path).account(OWNERS, budget, Part(prepared.deal, client))
    account.touch(account.reserve("an earlier experiment", events))


@pytest.fixture(scope="module")
def finished(rows, tmp_path_factory):
    """A run of FedMD under record-level DP, and its folder."""
    folder = tmp_path_factory.mktemp("private") / "run"
    return simulate(tiny.experiment(rows, {**DP, "rounds": 3}), folder, tiny.Quiet()), folder


def test_a_private_run_says_what_it_spent_and_stays_within_its_budget(finished):
    summary, folder = finished
    privacy = summary["privacy"]
    assert (privacy["unit"], privacy["adjacency"], privacy["delta"]) == (
        "record",
        "add-remove",
        1e-5,
    )
    assert privacy["accountant"] == "PLD"
    assert privacy["budget"] == 8.0
    # The noise is the least that the plan needs, so hardly anything is left.
    assert 7.9 < privacy["epsilon"] <= 8.0
    by_round = [record["privacy"]["epsilon"] for record in tiny.rounds(folder)]
    assert by_round == sorted(by_round)
    assert by_round[-1] == privacy["epsilon"]
    assert by_round[0] < privacy["epsilon"]


def test_the_reported_epsilon_is_that_of_the_steps_that_were_made(finished):
    summary, _ = finished
    noise = summary["privacy"]["noise_multiplier"]
    steps = 3 * 2  # one epoch at a rate of 1/2, three times
    spent = accountant.epsilon([Gaussian("teacher training", noise, 0.5, steps)], 1e-5)
    assert summary["privacy"]["epsilon"] == pytest.approx(spent, abs=1e-9)


def test_nothing_leaves_but_what_the_teacher_covers(finished):
    summary, _ = finished
    assert {each["field"] for each in summary["released"]} == {"logits", "report"}
    assert all("Gaussian noise" in each["provenance"] for each in summary["released"])


def test_the_config_in_the_run_folder_has_the_noise_and_gives_the_same_plan(finished):
    summary, folder = finished
    assert f"noise_multiplier = {summary['privacy']['noise_multiplier']}" in (
        folder / "config.toml"
    ).read_text(encoding="utf-8")


def test_a_client_over_its_budget_is_left_out_untouched_and_the_others_go_on(rows, tmp_path):
    experiment = tiny.experiment(rows, {**NOISY, "clients.quorum": 0.5})
    victim = tmp_path / "run" / "checkpoints" / "clients" / "client-0002" / "ledger.db"
    spend_before(prepare(experiment), 2, victim, [Gaussian("earlier", 0.8)])
    before = victim.read_bytes()
    summary = simulate(experiment, tmp_path / "run", tiny.Quiet(), resume=True)
    failures = tiny.failures(tmp_path / "run")
    assert [failure[:2] for failure in failures] == [(1, 2), (2, 2)]
    assert all(reason.startswith(f"{REFUSED}: tiny, round ") for _, _, reason in failures)
    assert summary["privacy"]["epsilon"] <= 8.0
    assert victim.read_bytes() == before  # not a gradient, not a byte
    assert not list(victim.parent.glob("*.safetensors"))
    per_client = {
        record["round"]: record["bytes"]["up"] for record in tiny.rounds(tmp_path / "run")
    }
    assert len(set(per_client.values())) == 1


def test_another_name_for_the_run_is_no_new_budget(rows, tmp_path):
    changes = {**DP, "privacy.ledger": str(tmp_path / "ledgers"), "privacy.noise_multiplier": 2.0}
    summary = simulate(tiny.experiment(rows, changes), tmp_path / "one", tiny.Quiet())
    assert summary["privacy"]["accountant"] == "PLD"
    renamed = {**changes, "name": "renamed"}
    again = simulate(tiny.experiment(rows, renamed), tmp_path / "two", tiny.Quiet())
    assert again["privacy"]["epsilon"] > summary["privacy"]["epsilon"]
    # Outside the plan that was committed before the data was first touched, only a filter is valid.
    assert again["privacy"]["accountant"] == "RDP filter"


def test_another_deal_of_a_file_is_no_new_budget(rows, tmp_path):
    """A record may sit with another client in the next run, so that what both spent adds up."""
    changes = {**DP, "privacy.ledger": str(tmp_path / "ledgers"), "privacy.noise_multiplier": 4.0}
    deals = [{}, {"seed": 8}, {"clients.count": 3}, {"data.public.size": 41}]
    for number, deal in enumerate(deals, start=1):
        prepared = prepare(tiny.experiment(rows, {**changes, "rounds": 1, **deal}))
        run = RunFolder(tmp_path / str(number))
        run.open(prepared.experiment, prepared.data, resume=False)
        engines.simulate(
            prepared, run, tiny.Quiet(), states=run.states
        )  # without a report, in half
        [told] = ledgers.read(run.path)
        assert told.path == tmp_path / "ledgers" / "ledger.db"
        # Disjoint clients compose in parallel: a run costs what one client spent, two steps.
        assert [each["steps"] for each in told.statement.events] == [2 * number]
    spent = accountant.epsilon([Gaussian("teacher training", 4.0, 0.5, 8)], 1e-5)
    assert told.statement.epsilon == pytest.approx(spent, abs=1e-9)


def test_when_too_few_are_left_the_run_ends_with_the_budgets_own_exit_status(rows, tmp_path):
    changes = {**NOISY, "privacy.ledger": str(tmp_path / "ledgers")}
    simulate(tiny.experiment(rows, changes), tmp_path / "one", tiny.Quiet())
    with pytest.raises(BudgetError, match=f"round 1: 0 of 4 clients answered .*{REFUSED}: tiny, "):
        simulate(tiny.experiment(rows, {**changes, "seed": 7}), tmp_path / "two", tiny.Quiet())
    assert errors.BudgetError.exit_status == 4


def test_a_plan_over_its_budget_is_refused_before_anything_runs(rows, tmp_path):
    changes = {**DP, "privacy.noise_multiplier": 0.7}
    with pytest.raises(
        BudgetError, match=r"0\.7 makes the plan cost epsilon \d.*at most epsilon 8"
    ):
        simulate(tiny.experiment(rows, changes), tmp_path / "run", tiny.Quiet())
    assert not (tmp_path / "run").exists()


class KilledError(Exception):
    """The server dies here."""


class Dying(RunFolder):
    """A run folder whose process is killed before it keeps round 2."""

    def keep(self, record, checkpoint, generated):
        if record["round"] == 2:
            raise KilledError
        super().keep(record, checkpoint, generated)


def answers_of(states):
    with StateStore(states) as store:
        return [store.answer(client, round=2) for client in range(4)]


def test_what_was_made_and_not_kept_is_sent_again_at_no_cost(rows, tmp_path):
    changes = {**DP, "privacy.noise_multiplier": 1.2, "rounds": 3}  # a fourth would not fit
    prepared = prepare(tiny.experiment(rows, changes))
    dying = Dying(tmp_path / "run")
    dying.open(prepared.experiment, prepared.data, resume=False)
    with pytest.raises(KilledError):
        engines.simulate(prepared, dying, tiny.Quiet(), states=dying.states)
    answers = answers_of(dying.states)
    summary = simulate(prepared.experiment, tmp_path / "run", tiny.Quiet(), resume=True)
    assert summary["privacy"]["epsilon"] <= 8.0
    assert summary["privacy"]["accountant"] == "PLD"
    assert summary["failures"] == 0
    assert None not in answers
    assert answers_of(dying.states) == answers
    told = ledgers.read(tmp_path / "run")
    assert {release["state"] for each in told for release in each.statement.releases} == {"sent"}


def copied(folder, to):
    to.mkdir(exist_ok=True)
    for path in folder.glob("ledger.db*"):
        shutil.copy(path, to / path.name)


class RollsBack(tiny.Quiet):
    """Puts client 1's ledger of round 1 back before round 3."""

    def __init__(self, states, safe):
        self.mine, self.safe = states / "client-0001", safe

    def round_ends(self, record):
        if record["round"] == 1:
            copied(self.mine, self.safe)
        if record["round"] == 2:
            copied(self.safe, self.mine)


def test_an_old_copy_of_a_ledger_is_refused(rows, tmp_path):
    changes = {**DP, "privacy.noise_multiplier": 2.0, "rounds": 4}
    prepared = prepare(tiny.experiment(rows, changes))
    run = RunFolder(tmp_path / "run")
    run.open(prepared.experiment, prepared.data, resume=False)
    watcher = RollsBack(run.states, tmp_path / "safe")
    engines.simulate(prepared, run, watcher, states=run.states)
    believed = "its ledger of spent privacy cannot be believed"
    failures = tiny.failures(run.path)
    assert [failure[:2] for failure in failures] == [(3, 1), (4, 1)]
    assert all(reason.startswith(f"{believed}: ledger ") for _, _, reason in failures)


def test_a_ledger_that_forgets_is_noticed_by_the_server_too(rows, tmp_path):
    """A client that does not look at what the server saw, and whose ledger starts afresh."""
    prepared = prepare(tiny.experiment(rows, NOISY))
    opened = []

    def find(_context, call):
        client = call.client
        opened.append(client)
        path = tmp_path / f"{client}" / f"ledger-{len(opened) if client == 0 else 0}.db"
        return ClientParty(prepared, DiskState(tmp_path / f"{client}"), lambda: Ledger(path))

    app = client_app(find)

    def blind(message, context):
        if "ledger" in message.content.config_records:
            del message.content["ledger"]
        return app(message, context)

    run = RunFolder(tmp_path / "run")
    run.open(prepared.experiment, prepared.data, resume=False)
    with InProcessGrid(blind, nodes=4, threads=1) as grid:
        federate(grid, prepared, run, tiny.Quiet(), threads=1)
    # The same length as before: only the head differs. A shorter one is refused.
    assert [client for _, client, _ in tiny.failures(run.path)] in ([], [0])


@pytest.mark.parametrize(
    "change",
    [
        {"sequence": -1},
        {"sequence": 1.0},
        {"head": "ab"},
        {"epsilon": float("nan")},
        {"epsilon": -1.0},
        {"accountant": "mine"},
    ],
)
def test_a_standing_that_cannot_be_is_no_message(change):
    good = wire.LedgerHead(3, "a" * 64, 1.5, "PLD")
    content = wire.pack(wire.Call(1, 2, b"", good))
    assert wire.unpack(content).ledger_head == good
    for key, value in change.items():
        content["ledger"][key] = value
    with pytest.raises(errors.MessageError, match="does not say where its ledger stands"):
        wire.unpack(content)


def test_the_same_seed_gives_other_noise_and_no_one_can_seed_it(rows, tmp_path):
    hashes = []
    for name in ("one", "two"):
        torch.manual_seed(0)
        simulate(tiny.experiment(rows, {**NOISY, "rounds": 1}), tmp_path / name, tiny.Quiet())
        hashes.append(tiny.student_hash(tmp_path / name))
    assert hashes[0] != hashes[1]
    with pytest.raises(ConfigError, match=r"unknown key 'privacy\.seed'"):
        tiny.experiment(rows, {**DP, "privacy.seed": 1})


@pytest.mark.parametrize("method", ["fedavg", "fedprox", "feddf", "local", "fedmd", "dsfl"])
def test_every_method_runs_under_record(rows, tmp_path, method):
    changes = {
        **DP,
        "method.name": method,
        "clients.models": [{"name": "mlp", "hidden": [16]}],
    }
    summary = simulate(tiny.experiment(rows, changes), tmp_path / "run", tiny.Quiet())
    assert 7.8 < summary["privacy"]["epsilon"] <= 8.0
    fields = {each["field"]: each["provenance"] for each in summary["released"]}
    if method in ("fedavg", "fedprox", "feddf", "local"):
        counts = [e for e in summary["released"] if e["field"] == "count"]
        # Noise is drawn once: the first time is a release, later ones are the same number again.
        assert {e["provenance"].split(":")[0]: e["times"] for e in counts} == {
            "release": 4,
            "post-processing of example count, Laplace noise 10": 4,
        }
    assert "seconds" not in json.dumps(fields)


def test_dense_runs_under_record_without_its_batchnorm_loss(squares, tmp_path):
    dense = {"name": "dense", "epochs": 1, "steps": 2, "batch_size": 8, "latent": 8, "width": 4}
    changes = {**NOISY, "rounds": 1, "data.public": None, "method": dense}
    with pytest.raises(ConfigError, match=r"method\.bn is 1: BatchNorm statistics are facts"):
        prepare(tiny.experiment(squares, changes))
    private = {**changes, "method": {**dense, "bn": 0.0}}
    summary = simulate(tiny.experiment(squares, private), tmp_path / "run", tiny.Quiet())
    assert summary["privacy"]["epsilon"] <= 8.0


def test_fedftg_runs_under_record_and_pays_for_its_class_counts_once(squares, tmp_path):
    small = {"iterations": 1, "student_steps": 1, "batch_size": 8, "latent": 4, "width": 4}
    model = {"name": "mlp", "hidden": [8]}
    changes = {
        **NOISY,
        "data.public": None,
        "method": {"name": "fedftg", **small},
        "clients.models": [model],
        "student.model": model,
    }
    summary = simulate(tiny.experiment(squares, changes), tmp_path / "run", tiny.Quiet())
    assert summary["privacy"]["epsilon"] <= 8.0
    counts = [e for e in summary["released"] if e["field"] == "counts"]
    assert {e["provenance"].split(":")[0]: e["times"] for e in counts} == {
        "release": 4,
        "post-processing of class counts, Laplace noise 10": 4,
    }


def test_fedpair_runs_under_record_and_pays_for_class_counts_once_and_each_training(
    squares, tmp_path
):
    model = {"name": "mlp", "hidden": [4]}
    changes = {
        **NOISY,
        "rounds": 2,
        "data.public": None,
        "clients.models": [model],
        "student.model": model,
        "method": {"name": "fedpair", "images": 40, "epochs": 1},
    }
    summary = simulate(tiny.experiment(squares, changes), tmp_path / "run", tiny.Quiet())
    training = Gaussian("teacher training", 1.0, 0.5, 2)
    expected = accountant.epsilon([Laplace("class counts", 10.0), training, training], 1e-5)
    assert summary["privacy"]["epsilon"] == pytest.approx(expected, abs=1e-9)
    counts = [e for e in summary["released"] if e["field"] == "counts"]
    assert {e["provenance"]: e["times"] for e in counts} == {
        "release: class counts, Laplace noise 10": 4,
        "post-processing of class counts, Laplace noise 10": 4,
    }
    with pytest.raises(ConfigError, match="'fedpair_moments' cannot run under 'record'"):
        prepare(
            tiny.experiment(
                squares, {**changes, "rounds": 1, "method": {"name": "fedpair_moments"}}
            )
        )


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"method.name": "fedgen", "clients.models": ["mlp"], "student.model": "mlp"}, "DP-SGD"),
        ({"method.name": "centralised"}, "pools the clients' private data"),
        ({"clients.models": ["dense-cnn"]}, "group"),
        ({"clients.training": {"clip_norm": 1.0}}, "clients.training.clip_norm is 1: DP-SGD clips"),
        ({"method.name": "fedmd", "privacy.unit": "client-votes"}, "use 'dsfl'"),
        ({"method.name": "dsfl", "privacy.unit": "client-votes"}, "hopeless"),
        ({"method.name": "dsfl", "privacy.unit": "client-logits"}, "hopeless"),
    ],
)
def test_what_cannot_be_protected_says_why(squares, changes, complaint):
    with pytest.raises(ConfigError, match=complaint):
        prepare(tiny.experiment(squares, {**DP, **changes}))


def many(rows, unit, **privacy):
    return tiny.experiment(
        rows,
        {
            "rounds": 2,
            "data.public.size": 20,
            "clients.count": 60,
            "data.partition": {"scheme": "iid"},
            "clients.training": {"epochs": 1, "batch_size": 4, "learning_rate": 0.05},
            "method": {"name": "dsfl", "public_per_round": 5},
            "privacy": {"unit": unit, "epsilon": 20.0, **privacy},
        },
    )


@pytest.mark.parametrize("unit", ["client-votes", "client-logits"])
def test_a_client_unit_is_spent_by_the_server(rows, tmp_path, unit):
    summary = simulate(many(rows, unit), tmp_path / "run", tiny.Quiet())
    privacy = summary["privacy"]
    assert 19 < privacy["epsilon"] <= 20
    assert privacy["adjacency"] == "replace-one"
    assert privacy["signal_to_noise"] >= 3
    # What a client sends is seen by the server alone; no score of a single teacher may show.
    assert summary["teachers"] is None
    assert {each["field"] for each in summary["released"]} == {"probabilities"}


def test_a_servers_spending_is_not_forgotten_when_it_is_killed(rows, tmp_path):
    prepared = prepare(many(rows, "client-votes"))
    dying = Dying(tmp_path / "run")
    dying.open(prepared.experiment, prepared.data, resume=False)
    with pytest.raises(KilledError):
        engines.simulate(prepared, dying, tiny.Quiet(), states=dying.states)
    # The noise of round 2 was drawn and is spent; drawing it anew does not fit.
    with pytest.raises(BudgetError, match="epsilon"):
        simulate(prepared.experiment, tmp_path / "run", tiny.Quiet(), resume=True)


def test_spare_rounds_pay_for_a_round_that_is_cut_off(rows, tmp_path):
    prepared = prepare(many(rows, "client-votes", spare_rounds=1))
    dying = Dying(tmp_path / "run")
    dying.open(prepared.experiment, prepared.data, resume=False)
    with pytest.raises(KilledError):
        engines.simulate(prepared, dying, tiny.Quiet(), states=dying.states)
    summary = simulate(prepared.experiment, tmp_path / "run", tiny.Quiet(), resume=True)
    assert 19 < summary["privacy"]["epsilon"] <= 20
    assert summary["privacy"]["accountant"] == "PLD"


@pytest.mark.parametrize(
    "leak", ["class means", "invented event", "raw data", "trains twice", "unnamed count"]
)
def test_a_method_that_leaks_is_stopped_at_the_gate(rows, tmp_path, leak):
    experiment = tiny.experiment(
        rows, {**NOISY, "rounds": 1, "method": {"name": "leaky:Leaky", "leak": leak}}
    )
    prepared = prepare(experiment)
    run = RunFolder(tmp_path / "run")
    run.open(prepared.experiment, prepared.data, resume=False)
    with pytest.raises(BudgetError, match=r"private data that nobody paid for: .* \(4\)"):
        engines.simulate(prepared, run, tiny.Quiet(), states=run.states)


def test_class_counts_that_the_card_names_are_paid_for_and_leave_with_noise(rows, tmp_path):
    changes = {**NOISY, "privacy.count_noise": 5.0, "method": {"name": "leaky:Histogram"}}
    leaky.SEEN.clear()  # of other tests
    summary = simulate(tiny.experiment(rows, changes), tmp_path / "run", tiny.Quiet())
    fields = [each["provenance"] for each in summary["released"] if each["field"] == "histogram"]
    assert fields == [
        "release: class counts, Laplace noise 5",
        "post-processing of class counts, Laplace noise 5",
    ]
    assert leaky.SEEN
    truth = {tuple(c) for c in prepare(tiny.experiment(rows, changes)).data.counts().tolist()}
    assert len(set(leaky.SEEN)) == 4  # the same noise in both rounds, other noise for each client
    assert not set(leaky.SEEN) <= truth


def test_a_plan_has_every_event_of_the_run(rows):
    changes = {
        **DP,
        "rounds": 5,
        "method.name": "fedavg",
        "clients.models": [{"name": "mlp", "hidden": [16]}],
        "clients.training.epochs": 3,
        "privacy.spare_rounds": 2,
        "privacy.noise_multiplier": 3.0,
    }
    prepared = prepare(tiny.experiment(rows, changes))
    plan = accounting.plan(prepared.method, prepared.setting)
    assert [(event.what, event.steps) for event in plan] == [
        *[("teacher training", 6), ("example count", 1)] * 3,  # the first round, and two spare
        *[("teacher training", 6)] * 4,
    ]


def test_the_first_budget_is_the_most_that_a_later_experiment_may_name(rows, tmp_path):
    changes = {**DP, "privacy.ledger": str(tmp_path / "ledgers"), "privacy.noise_multiplier": 4.0}
    simulate(tiny.experiment(rows, changes), tmp_path / "one", tiny.Quiet())
    for greedy in ({"privacy.epsilon": 80.0}, {"privacy.delta": 1e-4}):
        with pytest.raises(BudgetError, match=REFUSED):
            simulate(tiny.experiment(rows, {**changes, **greedy}), tmp_path / "two", tiny.Quiet())
        shutil.rmtree(tmp_path / "two")
    for ledger in (tmp_path / "ledgers").glob("*.db"):
        ledgers.allow(ledger, 80.0)
    raised = tiny.experiment(rows, {**changes, "privacy.epsilon": 80.0})
    assert simulate(raised, tmp_path / "two", tiny.Quiet())["failures"] == 0


@pytest.mark.parametrize("key", ["clip", "noise_multiplier", "delta", "ledger", "sample_rate"])
def test_a_privacy_key_without_a_budget_is_no_silent_protection(rows, key):
    value = "ledgers" if key == "ledger" else 0.25
    with pytest.raises(ConfigError, match=f"privacy.{key} is .* would protect nothing"):
        tiny.experiment(rows, {f"privacy.{key}": value})


def test_what_a_client_spent_before_it_failed_is_reported(rows, tmp_path):
    experiment = tiny.experiment(
        rows, {**NOISY, "rounds": 2, "method": {"name": "leaky:Fails", "fails": 3}}
    )
    summary = simulate(experiment, tmp_path / "run", tiny.Quiet())
    told = ledgers.read(tmp_path / "run")
    assert len(told) == 4  # also of the client that never answered
    assert summary["failures"] == 2
    most = max(each.statement.enforced for each in told)
    assert summary["privacy"]["epsilon"] == pytest.approx(most)


def test_a_server_part_gets_no_pooled_data_under_dp(rows, tmp_path):
    experiment = tiny.experiment(rows, {**NOISY, "method.name": "leaky:Pools"})
    with pytest.raises(BudgetError, match=r"ctx\.pooled hands out"):
        simulate(experiment, tmp_path / "run", tiny.Quiet())


def test_a_method_that_forgets_the_servers_noise_keeps_nothing(rows, tmp_path):
    experiment = many(rows, "client-votes").model_copy(
        update={"method": MethodChoice(name="leaky:Forgets", public_per_round=5)}
    )
    with pytest.raises(FederationError, match=r"did not ask ctx\.protect"):
        simulate(experiment, tmp_path / "run", tiny.Quiet())
    assert not (tmp_path / "run" / "student.safetensors").exists()


@pytest.mark.parametrize("kind", ["a file", "no place for a folder"])
def test_a_place_that_cannot_hold_ledgers_is_refused_before_anything_is_written(
    rows, tmp_path, kind
):
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" if kind == "a file" else tmp_path / "file" / "below"
    experiment = tiny.experiment(rows, {**DP, "privacy.ledger": str(place)})
    with pytest.raises(ConfigError, match=r"privacy\.ledger is .*expected a folder that can be"):
        simulate(experiment, tmp_path / "run", tiny.Quiet())
    assert not (tmp_path / "run").exists()


def test_a_clients_traceback_is_for_those_who_ask(run, rows, tmp_path, monkeypatch):
    """Opacus gives the root logger a handler, which would print it."""
    changes = {**NOISY, "privacy.ledger": str(tmp_path / "ledgers")}
    simulate(tiny.experiment(rows, changes), tmp_path / "one", tiny.Quiet())
    table = tiny.write_config(tmp_path / "c.toml", rows, changes)
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(sys.stderr)])
    status, _, complaint = run("simulate", table, "--out", tmp_path / "two")
    assert status == 4
    assert len(complaint.splitlines()) == 1
