"""Runs whose answers cross the wire in fewer bytes: what it costs, who begins anew, resuming."""

import pytest
import tiny
import torch
from pydantic import ValidationError

from fedkd.config import Experiment
from fedkd.errors import ConfigError, MessageError
from fedkd.exchange.codec import encode
from fedkd.federation.checking import checked
from fedkd.federation.prepare import prepare
from fedkd.jobs.simulate import simulate, simulate_world

QUICK = {"method.student": {"epochs": 2}, "method.digest": {"epochs": 1}, "rounds": 3}
REMEMBERING = {"answers": "transform", "delta": True}


def run(rows, folder, changes, **how):
    prepared = prepare(tiny.experiment(rows, {**QUICK, **changes}))
    simulate_world(prepared, folder, **how)
    return folder


def traffic(folder):
    return [each["bytes"] for each in tiny.rounds(folder)]


@pytest.mark.parametrize(
    ("method", "form"),
    [
        ("fedmd", {"answers": "int4", "delta": True, "cache": 2}),
        ("dsfl", {"answers": "transform"}),
        ("dsfl", {"answers": "top1", "delta": True, "entropy": True}),
        ("fedproto", {"answers": "int2", "delta": True}),
        ("fedgkt", {"answers": "int4"}),
    ],
)
def test_every_method_that_sends_answers_runs_in_fewer_bytes(rows, tmp_path, method, form):
    changes = {"method.name": method, "clients.models": [{"name": "mlp", "hidden": [16]}]}
    if method in ("fedproto", "fedgkt"):
        changes["method.digest"] = None
    if method == "fedgkt":
        changes |= {"method.student": None, "method.layer": "relu1", "method.records": 40}
    plain = traffic(run(rows, tmp_path / "plain", {**changes, "rounds": 1}))
    short = run(rows, tmp_path / "short", {**changes, "exchange": form})
    assert tiny.failures(short) == []
    assert all(each["up"] < plain[0]["up"] for each in traffic(short))


def test_a_client_that_was_left_out_begins_anew_and_everybody_else_goes_on(rows, tmp_path):
    """The server has not what client 1 sent last, and client 1 not what the others were told."""

    def tamper(round, _broadcast, uploads):
        return {1: {"logits": uploads[1]["logits"]}} if round == 2 else {}

    changes = {"rounds": 5, "exchange": {"answers": "int8", "delta": True, "cache": 3}}
    folder = run(rows, tmp_path / "run", changes, tamper=tamper)
    assert [(round, client) for round, client, _ in tiny.failures(folder)] == [(2, 1)]
    first, _, third, *_, last = traffic(folder)
    # Of four clients one sends all of its rows again, and is sent all of them.
    assert last["up"] < third["up"] < first["up"]
    assert last["down"] < third["down"]


def test_who_lies_in_every_round_is_let_in_in_every_round(rows, tmp_path):
    """The server has something else than it wrote itself, so it writes no difference from that."""

    def turned(_round, _broadcast, uploads):
        return {1: {**uploads[1], "logits": -uploads[1]["logits"]}}

    folder = run(rows, tmp_path / "run", {"exchange": REMEMBERING}, tamper=turned)
    assert tiny.failures(folder) == []


@pytest.mark.parametrize("form", [REMEMBERING, {"answers": "int2", "cache": 2}], ids=str)
def test_a_run_that_is_resumed_sends_the_same_bytes(rows, tmp_path, form):
    changes = {**QUICK, "rounds": 2, "exchange": form}
    straight = run(rows, tmp_path / "straight", changes)
    folder = tmp_path / "resumed"
    simulate(tiny.experiment(rows, {**changes, "rounds": 1}), folder)
    simulate(tiny.experiment(rows, changes), folder, resume=True)
    assert traffic(folder) == traffic(straight)
    assert tiny.student_hash(folder) == tiny.student_hash(straight)


def test_what_a_client_may_send_is_known_before_it_is_read(rows):
    prepared = prepare(tiny.experiment(rows, {"exchange": {"answers": "transform"}}))
    spec = prepared.on_the_wire(0, 1)["logits"]
    for data, reason in [
        (torch.zeros(spec.shape[0] + 1, dtype=torch.uint8), "shape is not"),
        (torch.zeros(0, dtype=torch.uint8), "field 'logits' is empty"),
        (torch.ones(9, dtype=torch.uint8), "field 'logits' is of no kind"),
        (torch.zeros(9, dtype=torch.uint8), "field 'logits' is not what the entropy coder makes"),
    ]:
        rest = {
            name: torch.zeros(each.shape, dtype=each.dtype)
            for name, each in prepared.expects(0, 1).items()
        }
        with pytest.raises(MessageError, match=reason) as error:
            checked(prepared, 1, 0, encode({**rest, "logits": data}))
        assert "\n" not in str(error.value)


def test_under_a_privacy_unit_every_message_has_one_size(rows, tmp_path):
    private = {"unit": "record", "epsilon": 1e4, "ledger": str(tmp_path / "ledger")}
    changes = {"privacy": private, "exchange": {"answers": "int4", "delta": True}}
    sizes = traffic(run(rows, tmp_path / "run", changes))
    assert sizes[1]["up"] == sizes[2]["up"] == sizes[0]["up"] + 4 * 16  # what it goes on from


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"method": {"name": "fedavg"}}, "and method 'fedavg' sends none: choose one of fedmd"),
        ({"method.top": 2}, "and method.top both say how answers are written"),
        ({"method.public_per_round": 10}, "asks about other inputs in every round"),
        ({"exchange.cache": 200, "data.public.size": 20}, "and answers have 20: set it to at most"),
    ],
)
def test_where_there_is_nothing_to_write_it_says_why(rows, changes, reason):
    form = {"exchange": {"answers": "int4", "delta": True}}
    models = {"clients.models": [{"name": "mlp", "hidden": [16]}]}
    with pytest.raises(ConfigError, match=reason):
        prepare(tiny.experiment(rows, {**models, **form, **changes}))


@pytest.mark.parametrize(
    ("exchange", "changes", "reason"),
    [
        ({"answers": "int4", "step": 2}, {}, "exchange.step = 2 is for"),
        ({"answers": "transform", "entropy": True}, {}, "leave out exchange.entropy"),
        ({"answers": "transform", "step": 1e300}, {}, "less than or equal to 10000"),
        ({"answers": "transform", "step": 1e-300}, {}, "greater than or equal to 0.0001"),
        ({"answers": "int4", "cache": 256}, {}, "less than or equal to 255"),
        ({"answers": "float16", "delta": True}, {}, "'float16' has as many for any"),
        ({"answers": "top1", "delta": True}, {}, "add entropy = true"),
        ({"answers": "int4", "cache": 2}, {"clients.participation": 0.5}, "asks others each time"),
        (
            {"answers": "int4", "delta": True},
            {"clients.asynchronous": {"buffer": 2}},
            "each client was told something else last",
        ),
        (
            {"answers": "int4", "entropy": True},
            {"privacy": {"unit": "record", "epsilon": 8}},
            "makes the size of a message follow from what it says",
        ),
        (
            {"answers": "transform"},
            {"method": {"name": "dsfl"}, "privacy": {"unit": "client-votes", "epsilon": 8}},
            "choose a form of one size",
        ),
        (
            {"answers": "int4"},
            {"method": {"name": "fedproto"}, "privacy": {"secure_aggregation": True}},
            "no bit can be spared",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(rows, exchange, changes, reason):
    with pytest.raises(ConfigError, match=reason) as error:
        tiny.experiment(rows, {"exchange": exchange, **changes})
    assert "\n" not in str(error.value)


def test_an_experiment_without_the_section_is_what_it_was(rows):
    plain = tiny.experiment(rows)
    assert "exchange" not in plain.to_json()
    assert Experiment.model_validate_json(plain.to_json()) == plain
    short = tiny.experiment(rows, {"exchange": {"answers": "int4"}})
    assert '"exchange":{"answers":"int4"}' in short.to_json()
    with pytest.raises(ValidationError):
        Experiment.model_validate({**plain.model_dump(), "exchange": {"answers": "int5"}})


def test_asynchronous_rounds_take_answers_in_fewer_bits(rows, tmp_path):
    changes = {"clients.asynchronous": {"buffer": 2}, "exchange": {"answers": "int4"}}
    assert tiny.failures(run(rows, tmp_path / "run", changes)) == []
