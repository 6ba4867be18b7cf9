"""A site's policy: whatever it does not allow is refused, by the line that refuses."""

import json
import re
import sys
from hashlib import sha256
from importlib.util import find_spec

import pytest
import tiny
import tomli_w
import torch
from dp_accounting.pld import privacy_loss_distribution as PLD
from flwr.app import Message
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import fedkd
from fedkd import data, models
from fedkd.config import ModelSpec, parse
from fedkd.data import shared_file
from fedkd.errors import ConfigError, PolicyError
from fedkd.exchange.codec import decode, encode
from fedkd.federation import compat, wire
from fedkd.federation.client import client_app
from fedkd.federation.deploy import bundle, executor, keys, siteapp
from fedkd.federation.deploy.site import Policy, run_name
from fedkd.federation.prepare import prepare
from fedkd.federation.secure import messages, steps
from fedkd.federation.secure.identity import Identity
from fedkd.federation.secure.steps import SumMember
from fedkd.federation.state import MemoryState
from fedkd.privacy.ledger import read_statements

RUN = "0123456789abcdef" * 2
DP = {"privacy": {"epsilon": 4.0, "sample_rate": 0.2}, "rounds": 1}
SUMMED = {"privacy": {**DP["privacy"], "secure_aggregation": True}, "rounds": 1}
CAP = {"unit": "record", "epsilon": 4.0, "delta": 1e-5}
REMINDED = {
    "method": {"name": "fedlwf", "exemplars": 5},
    "data": {"stream": {"by": "classes", "stages": 2}},
}
"""Data in stages, of which a client is to keep five records."""
SITE = {
    "name": "hospital-a",
    "server": "127.0.0.1:9400",
    "key": "key",
    "data": {"path": "own.npz"},
    "allow": {"methods": ["fedmd", "fedavg", "fedlwf"]},
    "privacy": {"unit": "none"},
}


@pytest.fixture
def site(tmp_path, rows):
    """Writes a SITE.toml with changes by dotted key, beside the data of client 1 of 4."""
    federated = data.federate(tiny.experiment(rows).data, clients=4, seed=7)
    shared_file.write_own(tmp_path / "own.npz", federated.clients[1])
    (tmp_path / "shared.safetensors").write_bytes(shared_file.to_bytes(federated))

    def write(changes=()):
        table = json.loads(json.dumps(SITE))
        for key, value in dict(changes).items():
            *sections, last = key.split(".")
            place = table
            for section in sections:
                place = place.setdefault(section, {})
            place[last] = value
        file = tmp_path / "SITE.toml"
        file.write_text(tomli_w.dumps(table))
        return file

    return write


def ask(
    file,
    experiment,
    *,
    round=1,
    client=1,
    shared=None,
    run=RUN,
    payload=None,
    version=fedkd.__version__,
    action="learn",
    beside=b"",
):
    """The site's answer to a call for `experiment`, and what it logged of it."""
    shared = shared or sha256((file.parent / "shared.safetensors").read_bytes()).hexdigest()
    context = compat.new_context(1, 2, {})
    context.run_config = {
        bundle.EXPERIMENT: experiment,
        bundle.SHARED: shared,
        bundle.RUN: run,
        bundle.VERSION: version,
    }
    compat.identify_server(1)
    call = wire.Call(round, client, encode({}) if payload is None else payload, beside=beside)
    message = Message(wire.pack(call), dst_node_id=2, message_type=f"train.{action}", group_id="1")
    compat.number(message, 1)
    app = client_app(
        lambda context, call: siteapp.party(file, context, call), lambda: siteapp.within(file)
    )
    return wire.unpack(app(message, context).content)


def travelling(rows, changes=()):
    experiment = tiny.experiment(rows, dict(changes))
    return bundle.for_wire(experiment, experiment.clients.count)


def test_what_is_allowed_is_answered_and_kept_on_the_sites_own_disk(site, rows):
    answer = ask(site(), travelling(rows))
    assert isinstance(answer, wire.Call)
    [kept] = (site().parent / "state" / "runs").iterdir()
    assert {path.name for path in kept.iterdir()} >= {"receipts.jsonl", "round-000001.safetensors"}


@pytest.mark.parametrize(
    ("line", "value", "asked", "why"),
    [
        ("allow.methods", ["dsfl"], {}, "the method is 'fedmd'"),
        ("allow.models", ["lenet5"], {}, "a model is 'mlp'"),
        ("allow.experiments", ["00" * 32], {}, "is not among them"),
        ("allow.exemplars", 4, REMINDED, "the experiment would keep 5"),
        ("limits.rounds", 1, {}, "the experiment has 2 rounds"),
        ("limits.bytes", 100, {}, "each round's answer would have"),
        ("privacy", CAP, {}, "the experiment protects by 'none'"),
        ("privacy", CAP | {"epsilon": 2.0}, DP, "the experiment's budget is 4"),
        ("privacy", CAP | {"delta": 1e-6}, DP, "the experiment's delta is 1e-05"),
        ("privacy", CAP, SUMMED, "the site would add but a share of the noise"),
    ],
)
def test_each_line_refuses_what_it_does_not_allow(site, rows, caplog, line, value, asked, why):
    answer = ask(site({line: value}), travelling(rows, asked))
    key = answer.phase
    assert str(answer) == f"its site's policy does not allow it ({key})"
    assert key.startswith(line)
    assert f"refused by SITE.toml: {key} = " in caplog.text
    assert why in caplog.text
    assert not (site().parent / "state").exists()  # nothing was touched


MLP = {"name": "mlp", "hidden": [8]}


@pytest.mark.parametrize(
    ("models", "asked", "why"),
    [
        (["torchvision/*"], "timm/resnet18", "a model is 'timm/resnet18'"),
        (["torchvision/resnet18"], "torchvision/resnet34", "a model is 'torchvision/resnet34'"),
        (None, "torchvision/resnet18", "a model is 'torchvision/resnet18'"),
        (["torch*"], "torchvision/resnet18", "a model is 'torchvision/resnet18'"),
        (["mlp/*", "mlp"], "mlp2", "a model is 'mlp2'"),
        (["hf/*"], "hf/a/b", "names the path 'a/b'"),
        (["hf/*"], "hf/..", "names the path '..'"),
        (["mlp"], MLP | {"weights": "/etc/passwd"}, "names the path '/etc/passwd'"),
        (["mlp"], MLP | {"weights": ".."}, "names the path '..'"),
    ],
)
def test_a_site_lists_families_and_reads_no_path_for_a_server(site, rows, models, asked, why):
    policy = Policy.load(site({} if models is None else {"allow.models": models}))
    changes = {"data.name": "rows", "clients.models": [asked], "student.model": asked}
    experiment = tiny.experiment(rows, changes)
    with pytest.raises(PolicyError, match=re.escape(why)):
        policy.check(experiment.to_json(), experiment)


def test_a_site_allows_a_whole_family_and_a_models_parameters_of_a_method(site, rows):
    policy = Policy.load(site({"allow.models": ["mlp", "torchvision/*"]}))
    changes = {"data.name": "rows", "clients.models": ["torchvision/resnet18"]}
    experiment = tiny.experiment(rows, changes)
    policy.check(experiment.to_json(), experiment)
    inside = {**changes, "method": {"name": "fedmd", "features": "timm/resnet18"}}
    experiment = tiny.experiment(rows, inside)
    with pytest.raises(PolicyError, match="names the model 'timm/resnet18'"):
        policy.check(experiment.to_json(), experiment)


def test_a_site_starts_from_its_own_copy_of_the_weights_that_were_agreed_on(
    site, rows, tmp_path, caplog
):
    draws = torch.Generator().manual_seed(3)
    spec = ModelSpec.model_validate(MLP)
    model = models.build(spec, shape=(10,), classes=3, generator=draws)
    (tmp_path / "coordinator").mkdir()
    save_file(model.state_dict(), tmp_path / "coordinator" / "start.safetensors")
    start = MLP | {"weights": str(tmp_path / "coordinator" / "start.safetensors")}
    experiment = prepare(tiny.experiment(rows, {"clients.models": [start]})).experiment
    text = bundle.for_wire(experiment, 4)
    assert "coordinator" not in text
    assert str(ask(site(), text)) == "ConfigError"
    assert "weights/start.safetensors': No such file" in caplog.text
    (tmp_path / "weights").mkdir()
    own = tmp_path / "weights" / "start.safetensors"
    save_file({name: value + 1 for name, value in model.state_dict().items()}, own)
    assert str(ask(site(), text)) == "ConfigError"
    assert "all parties need the same initial weights" in caplog.text
    own.write_bytes((tmp_path / "coordinator" / "start.safetensors").read_bytes())
    assert isinstance(ask(site(), text), wire.Call)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"data.name": "os:abort"}, "the experiment names code, 'os:abort'"),
        ({"data.name": "rows", "data.public.source": "os:abort"}, "names code, 'os:abort'"),
        ({"data.name": "c", "data.clients": ["c", "/etc/*"]}, "names the path '/etc/*'"),
    ],
)
def test_a_site_calls_no_loader_and_reads_no_clients_file_for_a_server(site, rows, changes, why):
    policy = Policy.load(site())
    table = tiny.experiment(rows).model_dump(mode="json", exclude_none=True)
    for key, value in changes.items():
        *parts, last = key.split(".")
        place = table
        for part in parts:
            place = place[part]
        place[last] = value
    experiment = parse(table)
    with pytest.raises(PolicyError, match=re.escape(why)):
        policy.check(experiment.to_json(), experiment)


def test_what_a_coordinator_loads_its_own_data_by_does_not_travel(rows):
    changes = {"data.name": "mine:load", "data.codes": {"sex": ["a:b"]}}
    text = travelling(rows, changes)
    sent = json.loads(text)["data"]
    assert sent["name"] == "load"
    assert not {"codes", "clients"} & sent.keys()


class Sums:
    """Client 1 of a secure sum is the site; the other three are sites whose keys it knows."""

    def __init__(self, site, rows, places, changes=()):
        self.folder = places
        keys.make(places, servers=["localhost"], clients=["a", "b", "c", "d"])
        self.file = site(
            {
                "privacy": CAP | {"secure_aggregation": True},
                "allow.methods": ["analytic"],
                "key": str(places / "clients" / "b"),
                "clients": str(places / "clients"),
                **dict(changes),
            }
        )
        self.text = travelling(rows, SUMMED | {"method": {"name": "analytic"}})
        experiment = tiny.experiment(rows, SUMMED | {"method": {"name": "analytic"}})
        self.setting = prepare(experiment).setting
        self.members = {c: self.member(c, "abcd"[c]) for c in (0, 2, 3)}
        self.keys = {c: steps.make_keys(each) for c, each in self.members.items()}

    def member(self, client, name, about=None, round=1):
        about = f"{RUN} {bundle.fingerprint(self.text)}" if about is None else about
        own = keys.read_own(self.folder / "clients" / name)
        known = keys.registered(self.folder / "clients")
        identity = Identity(own, known, about.encode())
        return SumMember(self.setting, MemoryState(), client, round, identity)

    def ask(self, action, tensors=None, **more):
        payload = encode(tensors or {})
        return ask(self.file, self.text, action=action, payload=payload, **more)

    def roster(self, **others):
        own = decode(self.ask("keys").payload)
        return messages.of_roster(
            {1: own, **self.keys, **{int(c[1:]): k for c, k in others.items()}}
        )


def test_a_site_that_allows_it_masks_its_sums_for_one_roster(site, rows, tmp_path, caplog):
    sums = Sums(site, rows, tmp_path / "keys")
    roster = sums.roster()
    shared = {1: decode(sums.ask("shares", roster).payload)}
    shared |= {c: steps.share(each, roster) for c, each in sums.members.items()}
    pairs = {c: each.pairs for c, each in messages.read_roster(roster).items()}
    circle = messages.circle(pairs, sums.setting, 1)
    told = messages.of_clients(range(4))
    beside = encode(messages.passed_on(circle, shared)[1])
    answer = sums.ask("learn", told, beside=beside)
    assert decode(answer.payload)["labels"].dtype == torch.int64
    assert str(sums.ask("learn", told, beside=beside)) == "MessageError"
    assert "used already" in caplog.text
    [statement] = read_statements(site().parent / "state" / "ledger.db")
    assert [event["steps"] for event in statement.events] == [1]


def test_a_server_that_makes_clients_up_is_refused_by_the_site(site, rows, tmp_path, caplog):
    sums = Sums(site, rows, tmp_path / "keys")
    made_up = steps.make_keys(SumMember(sums.setting, MemoryState(), 2, 1))
    for key, why in (
        (made_up, "client 2 are signed by no site that this one knows"),
        ({**sums.keys[2], "secure_aggregation/keys": made_up["secure_aggregation/keys"]},
         "client 2 are not what site 'c' signed for this round"),
        (steps.make_keys(sums.member(2, "d")), "clients 2 and 3 are one site, 'd'"),
        (steps.make_keys(sums.member(2, "c", round=2)), "not what site 'c' signed"),
        (steps.make_keys(sums.member(2, "c", about="another run")), "not what site 'c' signed"),
        (steps.make_keys(sums.member(3, "c")), "not what site 'c' signed"),
    ):  # fmt: skip
        assert str(sums.ask("shares", sums.roster(c2=key))) == "MessageError"
        assert why in caplog.text.splitlines()[-1] or why in caplog.text
        caplog.clear()
    (tmp_path / "keys" / "clients" / "d.pub").unlink()
    assert str(sums.ask("shares", sums.roster())) == "MessageError"
    assert "client 3 are signed by no site" in caplog.text


def test_a_site_that_knows_no_other_takes_part_in_no_secure_sum(site, rows, tmp_path, caplog):
    sums = Sums(site, rows, tmp_path / "keys", {"clients": "nowhere"})
    refusal = sums.ask("keys")
    assert str(refusal) == "its site's policy does not allow it (clients)"
    assert "SITE.toml: clients = 'nowhere', and it holds no site's public key" in caplog.text


@pytest.mark.parametrize(
    "named",
    [
        {"data": {"name": "/etc/passwd"}},
        {"data": {"name": "~/own.npz"}},
        {"data": {"name": "x", "public": {"source": "../shared.npz"}}},
        {"privacy": {"epsilon": 4.0, "ledger": "/tmp/elsewhere"}},
    ],
)
def test_a_path_from_the_server_is_not_even_looked_at(site, rows, named, caplog):
    text = json.dumps(json.loads(travelling(rows)) | named)
    answer = ask(site(), text)
    assert answer.phase == "data.path"
    assert "names the path" in caplog.text


@pytest.mark.parametrize(
    "named",
    [
        {"method": {"name": "marked:Method"}},
        {"student": {"model": "marked:Model"}},
        {"clients": {"count": 4, "models": ["mlp", {"name": "marked:Model"}]}},
        {"method": {"name": "fedmd", "generator": {"name": "marked:Generator"}}},
    ],
)
def test_code_that_the_site_did_not_name_is_not_imported(site, rows, named, tmp_path, monkeypatch):
    (tmp_path / "marked.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    answer = ask(site(), json.dumps(json.loads(travelling(rows)) | named))
    assert answer.phase in ("allow.methods", "allow.models")
    assert not (tmp_path / "imported").exists()


def test_a_method_of_ones_own_runs_where_the_site_names_it(site, rows):
    faults = {"method": {"name": "staged:Staged", "faults": {}}}
    text = travelling(rows, faults)
    assert ask(site(), text).phase == "allow.methods"
    assert isinstance(ask(site({"allow.methods": ["staged:Staged"]}), text), wire.Call)


def test_a_pinned_experiment_runs_and_another_seed_does_not(site, rows):
    text = travelling(rows)
    file = site({"allow.experiments": [bundle.fingerprint(text)]})
    assert isinstance(ask(file, text), wire.Call)
    assert ask(file, travelling(rows, {"seed": 8})).phase == "allow.experiments"


@pytest.fixture
def untraced():
    """Without coverage, whose lock an alarm in the wrong moment would leave locked for ever."""
    before = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(before)


@pytest.mark.usefixtures("untraced")
def test_a_round_that_takes_too_long_is_ended(site, rows, caplog, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDKD_TEST_HOLD", str(tmp_path))
    (tmp_path / "1-1").touch()  # it waits for ever
    slow = {"method": {"name": "staged:Staged", "faults": {"1-1": "holds"}}}
    file = site({"limits.seconds": 1.5, "allow.methods": ["staged:Staged"]})
    answer = ask(file, travelling(rows, slow))
    assert str(answer) == "its site's policy does not allow it (limits.seconds)"
    assert "limits.seconds = 1.5, and the round took longer" in caplog.text


@pytest.mark.usefixtures("untraced")
# The first alarm may sound inside a finaliser or a garbage collector's callback, where Python can
# only report what is raised. It is raised again a second later.
@pytest.mark.filterwarnings("ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning")
def test_the_limit_holds_for_what_comes_before_the_training_too(site, rows):
    """An experiment may be made so that to read it takes for ever."""
    huge = json.loads(travelling(rows))
    huge["clients"]["count"] = 10**7
    answer = ask(site({"limits.seconds": 1.0}), json.dumps(huge))
    assert answer.phase == "limits.seconds"


def test_a_site_reads_in_its_own_log_that_it_has_more_records_than_was_said(site, rows, caplog):
    said = {"privacy": {**DP["privacy"], "most_records": 50}, "rounds": 1}
    file = site({"privacy": CAP})
    answer = ask(file, travelling(rows, said))
    assert isinstance(answer, wire.Call)  # what leaves does not tell
    assert "privacy.most_records is 50, and a data set holds 50 records" in caplog.text


def test_spare_rounds_count(site, rows):
    asked = {"privacy": {"epsilon": 4.0, "noise_multiplier": 50.0, "spare_rounds": 99}}
    assert ask(site(), travelling(rows, asked)).phase == "limits.rounds"


def test_what_an_experiment_left_is_nothing_to_another_of_the_same_run(site, rows):
    """A server that names both alike would get a teacher that was trained without protection."""
    still = {"clients.training": {"epochs": 1, "learning_rate": 1e-30}, "rounds": 2}
    file = site()
    assert isinstance(ask(file, travelling(rows, {"rounds": 2})), wire.Call)
    private = travelling(rows, {**still, "privacy": {"epsilon": 4.0, "sample_rate": 0.2}})
    assert isinstance(ask(file, private, round=2), wire.Call)
    states = file.parent / "state" / "runs"
    first, second = (decode(next(states.glob(f"*/round-00000{n}*")).read_bytes()) for n in (1, 2))
    weights = [name for name in first if name.startswith("teacher/") and "weight" in name]
    assert weights
    assert not any(torch.equal(first[name], second[name]) for name in weights)


def test_what_every_answer_needs_is_imported_before_any_is_asked_for():
    """What cannot be imported would be passed over in silence, and imported anew by each answer."""
    assert all(find_spec(module) for module in executor.needed(private=True))
    more = set(executor.needed(private=True)) - set(executor.needed(private=False))
    assert more == {PLD.__name__}


def test_a_call_that_is_too_large_is_refused(site, rows):
    answer = ask(site({"limits.bytes": 5000}), travelling(rows), payload=b"\0" * 5001)
    assert answer.phase == "limits.bytes"


@pytest.mark.parametrize("call", [{"round": 0}, {"round": 3}, {"client": 4}, {"client": -1}])
def test_a_round_or_a_client_that_the_experiment_has_not_is_no_call(site, rows, call):
    assert ask(site(), travelling(rows), **call).kind == "MessageError"


def test_another_version_of_the_library_is_told_of(site, rows, caplog):
    answer = ask(site(), travelling(rows), version="0.0.9")
    assert str(answer) == "its site's policy does not allow it (version)"
    assert f"the server runs fedkd 0.0.9 and this site {fedkd.__version__}" in caplog.text
    assert ask(site(), travelling(rows), version=None).phase == "version"


def test_another_proxy_set_than_the_agreed_one_is_refused(site, rows):
    assert ask(site(), travelling(rows), shared="00" * 32).kind == "DataError"


@given(st.text(max_size=40))
def test_a_runs_name_is_no_path(name):
    good = len(name) == 32 and set(name) <= set("0123456789abcdef")
    if good:
        assert run_name(name) == name
    else:
        with pytest.raises(ValueError, match="32 hexadecimal"):
            run_name(name)


def test_the_cap_holds_over_experiments_whatever_they_name(site, rows):
    """The second experiment is another one to the server, and the same data to the site."""
    cap = {"privacy": {**CAP, "epsilon": 5.0}}
    file = site(cap)
    assert isinstance(ask(file, travelling(rows, DP)), wire.Call)
    again = travelling(rows, {**DP, "seed": 8, "name": "another"})
    assert ask(file, again, run="f" * 32).kind == "BudgetError"
    [statement] = read_statements(file.parent / "state" / "ledger.db")
    assert statement.allowed == 5.0
    assert statement.epsilon <= 4.0


def test_a_record_more_is_no_new_budget(site, rows):
    file = site({"privacy": CAP})
    assert isinstance(ask(file, travelling(rows, DP)), wire.Call)
    federated = data.federate(tiny.experiment(rows).data, clients=4, seed=7)
    fewer = federated.clients[1].subset(torch.arange(len(federated.clients[1]) - 1))
    shared_file.write_own(file.parent / "own.npz", fewer)
    answer = ask(file, travelling(rows, {**DP, "seed": 8}), run="f" * 32)
    assert answer.kind == "BudgetError"
    assert len(read_statements(file.parent / "state" / "ledger.db")) == 1


def test_an_owner_may_lower_and_raise_the_cap_in_the_sites_file(site, rows):
    assert isinstance(ask(site({"privacy": CAP}), travelling(rows, DP)), wire.Call)
    ledger = site().parent / "state" / "ledger.db"
    privacy = {"epsilon": 20.0, "noise_multiplier": 5.0, "sample_rate": 0.2}
    more = travelling(rows, {**DP, "privacy": privacy, "seed": 9})
    assert ask(site({"privacy": CAP}), more, run="e" * 32).phase == "privacy.epsilon"
    raised = site({"privacy": CAP | {"epsilon": 20.0}})
    assert isinstance(ask(raised, more, run="e" * 32), wire.Call)
    assert read_statements(ledger)[0].allowed == 20.0


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"privacy.unit": "record"}, "privacy.epsilon: privacy.unit = 'record' needs it"),
        ({"privacy.epsilon": 3.0}, "privacy.epsilon: privacy.unit = 'none' has no budget"),
        ({"limits.round": 3}, "unknown key 'limits.round': did you mean 'limits.rounds'?"),
        ({"server": "hospital"}, "key 'server' is \"hospital\""),
        ({"allow.methods": []}, "allow.methods"),
    ],
)
def test_a_wrong_line_is_named(site, changes, complaint):
    with pytest.raises(ConfigError) as caught:
        Policy.load(site(changes))
    assert complaint in str(caught.value)
    assert "SITE.toml" in str(caught.value)


def test_a_site_without_a_file_or_a_format_says_so(site, tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        Policy.load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"say data\.format"):
        _ = Policy.load(site({"data.path": "own.data"})).format
    assert Policy.load(site({"data.path": "own.data", "data.format": "npz"})).format == "npz"


def test_a_text_is_not_taken_for_a_pair(site, rows, tmp_path, caplog):
    lines = [f"good {n},food {n},{n % 2}" for n in range(40)]
    (tmp_path / "own.csv").write_text("\n".join(["text,more,label", *lines]))
    (tmp_path / "public.csv").write_text("text,more\ngood,food\n")
    text = {"column": ["text", "more"], "texts": str(tmp_path / "public.csv"), "length": 20}
    named = {"data.name": str(tmp_path / "own.csv"), "data.text": text, "data.public": None}
    models = {"clients.models": ["bag"], "student.model": "bag", "method": {"name": "fedavg"}}
    experiment = prepare(tiny.experiment(rows, named | models)).experiment
    federated = data.federate(experiment.data, clients=4, seed=7)
    file = site({"data": {"path": "own.csv"}})
    (tmp_path / "shared.safetensors").write_bytes(shared_file.to_bytes(federated))
    assert str(ask(file, bundle.for_wire(experiment, 4))) == "DataError"
    assert "the experiment's texts have 2 column(s), such as ('text', 'more')" in caplog.text
