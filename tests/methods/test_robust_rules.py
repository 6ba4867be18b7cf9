"""`[robust]`'s rules in methods: a liar among five does not decide; what cannot hold is refused."""

from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from federations import IMAGES, Federation, equal, federation, snapshot
from torch import Tensor

from fedkd import methods
from fedkd.config import Robust
from fedkd.config.robust import AnswersRule, ModelsRule
from fedkd.errors import ConfigError
from fedkd.exchange.aggregation import mean
from fedkd.methods import BUILT_IN
from fedkd.methods.core.screening import screened

DISTILLED = {"epochs": 15, "optimiser": "adam", "learning_rate": 0.02}
METHODS: dict[str, dict[str, Any]] = {
    "fedavg": {},
    "fedprox": {},
    "scaffold": {},
    "feddyn": {},
    "moon": {},
    "fedmrl": {},
    "fedkd": {},
    "fedmd": {"student": DISTILLED},
    "dsfl": {"student": DISTILLED},
    "feddf": {"student": DISTILLED},
    "fedproto": {"student": DISTILLED},
    "fedgkt": {"layer": "relu1", "records": 16, "back": {"epochs": 20, "learning_rate": 0.1}},
    "fedgen": {"steps": 5, "latent": 4, "hidden": 8},
    "fedftg": {"iterations": 1, "batch_size": 12, "latent": 8, "width": 4},
    "dense": {"epochs": 1, "steps": 2, "batch_size": 12, "latent": 8, "width": 4},
    "dafl": {"epochs": 1, "steps": 2, "batch_size": 12, "latent": 8, "width": 4},
    "adi": {"epochs": 1, "steps": 2, "batch_size": 12},
    "fedpair": {"epochs": 1, "images": 40},
    "analytic": {},
    "fd": {"student": DISTILLED},
    "fml": {},
    "lg-fedavg": {"student": DISTILLED},
    "fedgh": {"student": DISTILLED},
    "fedtgp": {"student": DISTILLED, "prototypes": {"epochs": 5}},
    "fedpair_moments": {
        "epochs": 1,
        "images": 40,
        "features": {"name": "random-filters", "filters": 4, "pool": 2},
    },
}
LOUD = {"logits": 6e4, "probabilities": 1.0, "prototypes": 1e4}


def built(name: str, robust: Robust | None, **changes: Any) -> Federation:
    fed = federation(
        {"name": name, **METHODS[name]}, IMAGES, (24, 20, 16, 20, 24), count=5, **changes
    )
    experiment = fed.setting.experiment.model_copy(update={"robust": robust})
    fed.setting = replace(fed.setting, experiment=experiment)
    methods.check_rules(fed.method, fed.setting)
    return fed


def ruled(name: str, rule: str | None = None, **keys: Any) -> Robust:
    """A rule for what the method combines."""
    combines = methods.find(name).card.combines
    own = {"answers": "median", "models": "median"}
    return Robust(hostile=0.2, **{what: rule or own[what] for what in combines}, **keys)


def spoilt(upload: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same loud lie on everything: one class on all inputs, a model flung away."""
    lie = {}
    for name, value in upload.items():
        field = name.partition("/")[0]
        if field in ("model", "front", "factors", "whole") and value.is_floating_point():
            lie[name] = -50 * value
        elif field in LOUD:
            lie[name] = torch.zeros_like(value)
            lie[name][..., 0] = LOUD[field]
        else:
            lie[name] = value
    return lie


def attacked(fed: Federation, liars: int = 1) -> Federation:
    """One round in which the first clients lie."""
    broadcast = fed.begin()
    uploads = {client: fed.wire(client, fed.ask(client, 1, broadcast)) for client in range(5)}
    for client in range(liars):
        uploads[client] = spoilt(uploads[client])
    ctx = fed.server_context(1)
    fed.method.server(ctx, uploads)
    fed.ctx = ctx
    return fed


def test_every_method_that_says_so_is_tried() -> None:
    combining = [name for name in BUILT_IN if methods.find(name).card.combines]
    assert {*combining, "analytic"} == {*METHODS, "fedlwf"}  # which is fedavg


@pytest.mark.parametrize(
    "name", ["fedavg", "fedkd", "fedmd", "dsfl", "feddf", "fedproto", "fedgkt"]
)
def test_a_loud_client_decides_without_a_rule_and_not_with_one(name: str) -> None:
    honest = attacked(built(name, None), liars=0).accuracy()
    bare = attacked(built(name, None)).accuracy()
    with_rule = attacked(built(name, ruled(name)))
    assert with_rule.accuracy() >= honest - 0.1
    assert bare < honest - 0.2 or name not in ("fedavg", "fedmd", "feddf")
    assert max(with_rule.ctx.apart, key=with_rule.ctx.apart.get) == 0


@pytest.mark.parametrize("name", [name for name in METHODS if name != "analytic"])
def test_every_method_runs_by_a_rule_on_a_finite_student(name: str) -> None:
    fed = attacked(built(name, ruled(name)))
    assert all(torch.isfinite(each).all() for each in fed.student.state_dict().values())


@pytest.mark.parametrize("rule", [rule for rule in get_args(AnswersRule) if rule != "mean"])
def test_every_rule_for_answers_makes_a_student(rule: str) -> None:
    honest = attacked(built("fedmd", None), liars=0).accuracy()
    fed = attacked(built("fedmd", Robust(hostile=0.2, answers=rule)))
    assert fed.accuracy() >= honest - 0.1


@pytest.mark.parametrize("neighbours", [False, True])
@pytest.mark.parametrize("rule", [rule for rule in get_args(ModelsRule) if rule != "mean"])
def test_every_rule_for_models_makes_a_student(rule: str, *, neighbours: bool) -> None:
    honest = attacked(built("fedavg", None), liars=0).accuracy()
    robust = Robust(hostile=0.2 if rule != "bulyan" else 1e-9, models=rule, neighbours=neighbours)
    if rule == "bulyan":  # which needs 7 clients for one
        with pytest.raises(ConfigError, match="needs 7 clients to stand 1 that lie"):
            built("fedavg", robust)
        return
    assert attacked(built("fedavg", robust)).accuracy() >= honest - 0.1


@pytest.mark.parametrize("name", ["fedavg", "fedmd"])
def test_screening_alone_changes_no_bit_of_what_is_combined(name: str) -> None:
    plain, screened = built(name, None), built(name, Robust())
    for fed in (plain, screened):
        fed.round(1, fed.begin())
    assert equal(snapshot(plain.student), snapshot(screened.student))


def test_no_clients_sums_outweigh_three_medians() -> None:
    def loud(robust: Robust | None, times: float) -> Federation:
        fed = built("analytic", robust)
        broadcast = fed.begin()
        uploads = {client: fed.wire(client, fed.ask(client, 1, broadcast)) for client in range(5)}
        labels = uploads[0]["labels"].roll(1, dims=1)  # each class for the one before
        uploads[0] = {"features": times * uploads[0]["features"], "labels": times * labels}
        fed.ctx = fed.server_context(1)
        fed.method.server(fed.ctx, uploads)
        return fed

    assert loud(None, 1e4).accuracy() < 0.5
    bounded = loud(Robust(), 1e4)
    assert bounded.ctx.apart[0] > 1e3
    assert bounded.accuracy() > 0.5
    assert equal(snapshot(loud(None, 1.0).student), snapshot(loud(Robust(), 1.0).student))


def test_claimed_counts_say_under_a_rule_only_whether_there_are_any() -> None:
    fed = built("fedproto", ruled("fedproto"))
    claimed = {0: {"counts": torch.tensor([10**9, 0, 1])}, 1: {"counts": torch.tensor([0, 0, 3])}}
    counts = fed.server_context(1).counts(claimed, "counts")
    assert counts.tolist() == [[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]


def test_expguard_remembers_who_lied_and_forgets_by_the_memory() -> None:
    fed = built("fedmd", Robust(answers="expguard", memory=0.5))
    said = torch.randn(5, 30, 3, generator=torch.Generator().manual_seed(1))
    said[0] = torch.tensor([30.0, 0.0, 0.0])
    form, scores = fed.setting.task.likelihood.bounded, []
    for round in (1, 2):
        fed.server_context(round).combine(range(5), said, mean, form)
        scores.append(fed.server_state["robust/scores"])
    assert scores[0].argmax() == 0
    torch.testing.assert_close(scores[1], 1.5 * scores[0])
    fed.server_context(3).combine([1, 2, 3], said[1:4], mean, form)
    assert fed.server_state["robust/scores"][0] == scores[1][0]  # who is not there is not judged


def test_a_round_of_two_is_held_against_nobody_later() -> None:
    after, alone = built("fedmd", Robust()), built("fedmd", Robust())
    broadcast = after.begin()
    said = {client: after.wire(client, after.ask(client, 1, broadcast)) for client in range(5)}
    two = {client: said[client] for client in (0, 1)}
    heard, found = screened(after.method, after.server_context(1), Robust(), two)
    assert (heard, found.agreement, found.left_out) == (two, {}, ())
    for fed in (after, alone):
        screened(fed.method, fed.server_context(2), Robust(), said)
    assert min(alone.server_state["screening/agreement"]) > 0
    assert equal(after.server_state, alone.server_state)


@pytest.mark.parametrize(
    ("name", "robust", "why"),
    [
        ("fedavg", Robust(answers="median"), "method 'fedavg' combines no answers .* fedmd, dsfl,"),
        (
            "fedmd",
            Robust(models="median"),
            "combines no models .* one of fedavg, fedprox, scaffold,",
        ),
        (
            "fedavg",
            Robust(models="bulyan"),
            "needs 11 clients to stand 2 that lie .* asks 5: choose",
        ),
        ("fedavg", Robust(models="multi-krum"), "robust.hostile to at most 0.2, or choose another"),
    ],
)
def test_a_rule_that_would_not_hold_is_refused(name: str, robust: Robust, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as refused:
        built(name, robust)
    assert "\n" not in str(refused.value)


def test_two_clients_are_too_few_and_unlike_answers_are_refused() -> None:
    two = federation("fedmd", sizes=(8, 8), count=2)
    experiment = two.setting.experiment.model_copy(update={"robust": Robust(answers="median")})
    with pytest.raises(ConfigError, match="asks 2 clients, of which nobody can say who lies"):
        methods.check_rules(two.method, replace(two.setting, experiment=experiment))
    experiment = two.setting.experiment.model_copy(update={"robust": Robust()})
    with pytest.raises(ConfigError, match=r"robust\.screen compares .* round asks 2, of which"):
        methods.check_rules(two.method, replace(two.setting, experiment=experiment))
    fed = built("fedmd", Robust(answers="median"))
    task, likelihood = fed.setting.task, fed.setting.task.likelihood
    mixing = replace(task, likelihood=replace(likelihood, mix=lambda answers: answers[0]))
    with pytest.raises(ConfigError, match="compares answers number by number"):
        methods.check_rules(fed.method, replace(fed.setting, task=mixing))
    numbers = replace(task, likelihood=replace(likelihood, bounded=None))
    experiment = fed.setting.experiment.model_copy(update={"robust": Robust(answers="expguard")})
    with pytest.raises(ConfigError, match="may be of any size on one of them"):
        methods.check_rules(fed.method, replace(fed.setting, task=numbers, experiment=experiment))


def test_the_share_that_a_refusal_names_is_one_that_holds() -> None:
    def of_seven(hostile: float) -> None:
        fed = federation("fedavg", IMAGES, (8,) * 7, count=7)
        robust = Robust(models="multi-krum", hostile=hostile)
        experiment = fed.setting.experiment.model_copy(update={"robust": robust})
        methods.check_rules(fed.method, replace(fed.setting, experiment=experiment))

    with pytest.raises(ConfigError, match=r"set robust.hostile to at most 0\.28, or") as refused:
        of_seven(0.45)
    of_seven(float(str(refused.value).split("at most ")[1].split(",")[0]))
