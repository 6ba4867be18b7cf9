"""FedAvg, FedProx and FedDF: what is averaged, with which weights, and where it starts."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from federations import (
    IMAGES,
    SMALL,
    STILL,
    WIDE,
    Federation,
    equal,
    federation,
    protected,
    samples,
    snapshot,
    tensors,
)
from torch import Tensor, nn

from fedkd.config import ModelSpec, Stream
from fedkd.errors import ConfigError
from fedkd.exchange.aggregation import average_models
from fedkd.exchange.messages import Upload, group
from fedkd.learning import evaluate
from fedkd.learning.data_free import objectives
from fedkd.learning.data_free.synthesis import synthesise
from fedkd.learning.ensemble import Ensemble
from fedkd.methods.core.base import ClientContext
from fedkd.models.generators import build_generator

SIZES = (24, 16, 8)


def oracle(uploads: list[Upload], name: str) -> Tensor:
    """The mean by example count, in float64 numpy."""
    parts = [upload.values[f"model/{name}"].data.double().numpy() for upload in uploads]
    counts = [int(upload.values["count"].data) for upload in uploads]
    return torch.from_numpy(np.asarray(np.average(np.stack(parts), axis=0, weights=counts)))


@pytest.mark.parametrize("name", ["fedavg", "fedprox"])
def test_the_student_and_the_broadcast_are_the_mean_by_example_count(name: str) -> None:
    fed = federation(name, IMAGES, SIZES, models=["dense-cnn"], student="dense-cnn")
    broadcast = fed.begin()
    assert equal(group("model", broadcast.to("dense-cnn")), snapshot(fed.student))
    uploads = [fed.ask(client, 1, broadcast) for client in range(3)]
    assert [int(upload.values["count"].data) for upload in uploads] == list(SIZES)
    fed_uploads = {client: fed.wire(client, upload) for client, upload in enumerate(uploads)}
    after = fed.method.server(fed.server_context(), fed_uploads)
    for key, value in fed.student.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, oracle(uploads, key).to(value.dtype))
        else:
            assert value == uploads[0].values[f"model/{key}"].data
    assert equal(group("model", after.to("dense-cnn")), snapshot(fed.student))


def test_clients_start_each_round_from_what_they_received() -> None:
    fed = federation("fedavg", training=STILL, rounds=2)
    broadcast, _ = fed.round(1, fed.begin())
    moved = {name: tensor + 1 for name, tensor in broadcast.common.items()}
    upload = tensors(fed.ask(0, 2, type(broadcast)(common=moved)))
    torch.testing.assert_close(group("model", upload), group("model", moved))


def model_of(fed: Federation) -> dict[str, Tensor]:
    return group("model", tensors(fed.ask(0, 1, fed.begin())))


def test_without_mu_fedprox_is_fedavg_bitwise() -> None:
    assert equal(model_of(federation("fedavg")), model_of(federation({"name": "fedprox", "mu": 0})))


def test_mu_is_a_leash() -> None:
    def distance(mu: float) -> float:
        training = {"epochs": 5, "batch_size": 8, "learning_rate": 0.05, "momentum": 0.0}
        fed = federation({"name": "fedprox", "mu": mu}, training=training)
        start, end = snapshot(fed.student), model_of(fed)
        return sum(float((end[key] - start[key]).square().sum()) for key in start) ** 0.5

    free, held, tight = distance(0.0), distance(1.0), distance(15.0)
    assert tight < held < free
    assert tight < 0.2 * free


STAY = {"epochs": 1, "optimiser": "sgd", "learning_rate": 1e-12, "momentum": 0.0}


def feddf(student: dict[str, Any] = SMALL, how: dict[str, Any] | None = None) -> Federation:
    method = {"name": "feddf", "student": STAY if how is None else how}
    return federation(method, rounds=2, models=[SMALL, WIDE], student=student)


def name_of(model: dict[str, Any]) -> str:
    return str(ModelSpec.model_validate(model))


def test_each_architecture_has_a_group_that_starts_from_its_own_average() -> None:
    fed = feddf()
    broadcast = fed.begin()
    assert set(broadcast.by_model) == {name_of(SMALL), name_of(WIDE)}
    uploads = [fed.ask(client, 1, broadcast) for client in range(3)]  # small, wide, small
    after = fed.method.server(
        fed.server_context(), {client: fed.wire(client, u) for client, u in enumerate(uploads)}
    )
    for model, members in ((SMALL, [uploads[0], uploads[2]]), (WIDE, [uploads[1]])):
        for key, value in group("model", after.to(name_of(model))).items():
            torch.testing.assert_close(value, oracle(members, key).float())
    small = group("model", after.to(name_of(SMALL)))
    assert equal(small, snapshot(fed.student))


def test_a_group_of_which_nobody_answers_goes_on_from_where_it_was() -> None:
    fed = feddf()
    first, _ = fed.round(1, fed.begin())
    second, _ = fed.round(2, first, cohort=[0, 2])
    before, after = (group("model", b.to(name_of(WIDE))) for b in (first, second))
    torch.testing.assert_close(after, before)
    assert not equal(
        group("model", second.to(name_of(SMALL))), group("model", first.to(name_of(SMALL)))
    )


@pytest.mark.parametrize("student", [SMALL, {"name": "mlp", "hidden": [7]}])
def test_the_student_comes_to_agree_with_the_ensemble_in_or_outside_the_groups(
    student: dict[str, Any],
) -> None:
    how = {"epochs": 40, "batch_size": 8, "optimiser": "adam", "learning_rate": 0.01}
    fed = feddf(student, how)
    broadcast = fed.begin()
    uploads = {c: fed.wire(c, fed.ask(c, 1, broadcast)) for c in range(3)}
    x = samples(100, fed.setting.shape, 77).x
    ctx = fed.server_context()
    answers = [evaluate.answers(teacher, x) for teacher in ctx.load_teachers(uploads).values()]
    target = torch.stack(answers).mean(dim=0).softmax(dim=1)

    def gap() -> float:
        mine = evaluate.answers(fed.student, x).log_softmax(dim=1)
        return float((target * (target.log() - mine)).sum(dim=1).mean())

    before = gap()
    fed.method.server(ctx, uploads)
    assert gap() < 0.2 * before
    test = [evaluate.answers(t, fed.test.x) for t in ctx.load_teachers(uploads).values()]
    right = torch.stack(test).mean(dim=0).argmax(dim=1) == fed.test.y
    assert ctx.ensemble["accuracy"] == pytest.approx(right.double().mean().item())


def test_in_feddf_a_claim_is_held_against_the_group_that_it_would_rule() -> None:
    fed = feddf()
    broadcast = fed.begin()
    uploads = {client: fed.wire(client, fed.ask(client, 1, broadcast)) for client in range(3)}
    uploads[2]["count"] = torch.tensor(10**9)
    ctx = fed.server_context()
    fed.method.server(ctx, uploads)
    # Clients 0 and 2 are one group, of two; client 1 is alone in the other.
    assert ctx.capped == {2: (pytest.approx(1.0, abs=1e-6), pytest.approx(0.75))}


def test_a_student_outside_the_groups_is_sent_to_nobody() -> None:
    fed = feddf({"name": "mlp", "hidden": [7]})
    broadcast, _ = fed.round(1, fed.begin())
    assert set(broadcast.by_model) == {name_of(SMALL), name_of(WIDE)}
    assert broadcast.common == {}


def test_a_client_of_feddf_receives_the_model_of_its_own_architecture() -> None:
    fed = federation(
        {"name": "feddf", "student": STAY}, models=[SMALL, WIDE], training=STILL, rounds=2
    )
    broadcast = fed.begin()
    for client, model in ((0, SMALL), (1, WIDE), (2, SMALL)):
        upload = group("model", tensors(fed.ask(client, 1, broadcast)))
        torch.testing.assert_close(upload, group("model", broadcast.to(name_of(model))))


MADE = {"batches": 2, "steps": 3, "batch_size": 10, "latent": 8, "width": 4}


def data_free(student: dict[str, Any] = SMALL, **generator: Any) -> Federation:
    method = {"name": "feddf", "student": STAY, "generator": {**MADE, **generator}}
    return federation(method, IMAGES, models=[SMALL, "dense-cnn"], student=student, public=None)


def test_without_a_proxy_set_feddf_distils_on_images_made_against_the_averaged_student() -> None:
    fed = data_free(bn=0.5, adversarial=2.0)
    fed.method.check(fed.setting)
    broadcast = fed.begin()
    uploads = {c: fed.wire(c, fed.ask(c, 1, broadcast)) for c in range(3)}
    average = fed.setting.build(fed.setting.experiment.student.model, purpose="group")
    average.load_state_dict(
        average_models(
            [group("model", uploads[c]) for c in (0, 2)], [int(uploads[c]["count"]) for c in (0, 2)]
        )
    )
    ctx = fed.server_context()
    with Ensemble(list(ctx.load_teachers(uploads).values())) as ensemble:
        second = synthesise(
            build_generator(IMAGES, latent=8, width=4, generator=ctx.rng("generator-2")),
            ensemble,
            average,
            partial(objectives.dense, bn=0.5, adversarial=2.0),
            classes=3,
            steps=3,
            batch_size=10,
            latent=8,
            learning_rate=1e-3,
            rng=ctx.rng("synthesis-2"),
        )
    fed.method.server(ctx, uploads)
    assert ctx.generated is not None
    assert ctx.generated.x.shape == (20, *IMAGES)
    assert torch.equal(ctx.generated.x[10:], second.x)
    assert torch.equal(ctx.generated.y[10:], second.y)
    assert ctx.losses["distil"] >= 0


def test_with_a_proxy_set_nothing_is_made_up() -> None:
    fed = feddf()
    _, ctx = fed.round(1, fed.begin())
    assert ctx.generated is None


def test_without_a_proxy_set_feddf_needs_images_and_under_privacy_no_batchnorm_loss() -> None:
    rows = federation({"name": "feddf"}, public=None)
    with pytest.raises(ConfigError, match=r"method 'feddf' cannot generate inputs of shape \(5,\)"):
        rows.method.check(rows.setting)
    for bn in (1.0, 0.0):
        fed = data_free(bn=bn)
        fed.method.check(fed.setting)
        if bn:
            with pytest.raises(ConfigError, match=r"method\.generator\.bn is 1"):
                fed.method.check(protected(fed.setting))
        else:
            fed.method.check(protected(fed.setting))


@pytest.mark.parametrize("name", ["fedavg", "fedprox"])
def test_what_is_private_is_learned_and_kept_and_never_sent_nor_received(name: str) -> None:
    fed = federation({"name": name, "private": ["hidden1"]}, rounds=2)
    drawn = snapshot(fed.student)
    broadcast = fed.begin()
    own: dict[int, Tensor] = {}
    for round in (1, 2):
        assert not any("hidden1" in key for key in broadcast.common)
        uploads = {}
        for client in range(2):
            upload = fed.ask(client, round, broadcast)
            assert {key.partition("/")[2].rpartition(".")[0] for key in upload.values} == {
                "",
                "classifier",
            }
            uploads[client] = fed.wire(client, upload)
            kept = group("teacher", fed.states[client])["hidden1.weight"]
            assert not torch.equal(kept, own.get(client, drawn["hidden1.weight"]))
            own[client] = kept.clone()
        broadcast = fed.method.server(fed.server_context(round), uploads)
    assert not torch.equal(own[0], own[1])
    after = snapshot(fed.student)
    assert torch.equal(after["hidden1.weight"], drawn["hidden1.weight"])
    assert not torch.equal(after["classifier.weight"], drawn["classifier.weight"])


def test_private_parts_must_be_there_and_leave_some() -> None:
    with pytest.raises(
        ConfigError, match=r"method.private names 'user', which .*it has hidden1, clas"
    ):
        check(["user"])
    with pytest.raises(ConfigError, match=r"method.private names all of the model, so that noth"):
        check(["hidden1", "classifier"])


def check(private: list[str]) -> None:
    fed = federation({"name": "fedavg", "private": private})
    fed.method.check(fed.setting)


def test_a_server_that_sends_a_private_part_does_not_change_it() -> None:
    fed = federation({"name": "fedavg", "private": ["hidden1"]}, training=STILL)
    broadcast, drawn = fed.begin(), snapshot(fed.student)["hidden1.weight"]
    planted = {"model/hidden1.weight": torch.full_like(drawn, 9.0)}
    fed.ask(0, 1, type(broadcast)(common={**broadcast.common, **planted}))
    torch.testing.assert_close(group("teacher", fed.states[0])["hidden1.weight"], drawn)


def test_a_server_that_sends_a_private_part_of_before_does_not_set_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = Stream(by="classes", stages=2)
    fed = federation({"name": "fedlwf", "private": ["hidden1"]}, stream=stream)
    seen: list[Tensor] = []

    def look(_ctx: object, other: nn.Module, *_: object) -> None:
        seen.append(other.state_dict()["hidden1.weight"])

    monkeypatch.setattr(ClientContext, "train_beside", look)
    broadcast, drawn = fed.begin(), snapshot(fed.student)["hidden1.weight"]
    planted = {"before/hidden1.weight": torch.full_like(drawn, 9.0)}
    fed.ask(0, 1, type(broadcast)(common={**broadcast.common, **planted}))
    torch.testing.assert_close(seen, [drawn])


class Tied(nn.Module):
    """One tensor of weights under two names."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.items = nn.Linear(shape[0], shape[0])
        self.again = self.items
        self.classifier = nn.Linear(shape[0], classes)

    def forward(self, x: Tensor) -> Tensor:
        said: Tensor = self.classifier(self.again(self.items(x)))
        return said


def test_a_private_part_that_another_name_would_send_is_refused() -> None:
    own = {"name": f"{__name__}:Tied"}
    for private, refused in ((["items"], True), (["items", "again"], False)):
        fed = federation({"name": "fedavg", "private": private}, models=[own], student=own)
        if refused:
            with pytest.raises(ConfigError, match=r"'items.weight', which is one tensor with 'aga"):
                fed.method.check(fed.setting)
        else:
            fed.method.check(fed.setting)
