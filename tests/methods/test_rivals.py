"""DAFL, ADI and Co-Boosting, one-shot: the clients' ensemble in place of the teacher."""

from functools import partial
from typing import Any

import pytest
import torch
from federations import CLASSES, IMAGES, ROWS, Federation, federation, protected, snapshot
from torch import Tensor

from fedkd.config import Optimisation
from fedkd.data.types import Samples
from fedkd.errors import ConfigError
from fedkd.exchange.messages import Broadcast
from fedkd.knowledge import label
from fedkd.learning import consensus, evaluate
from fedkd.learning.data_free import adi, co_boosting, dafl, objectives, synthesis
from fedkd.learning.ensemble import Ensemble
from fedkd.models.generators import build_generator

TINY: dict[str, dict[str, Any]] = {
    "dafl": {"epochs": 2, "steps": 2, "batch_size": 12, "latent": 8, "width": 4},
    "adi": {"epochs": 2, "steps": 3, "batch_size": 12, "student_batch_size": 8},
    "co_boosting": {"epochs": 2, "steps": 2, "batch_size": 12, "latent": 8, "width": 4},
}
TRAINING = {"epochs": 2, "batch_size": 10, "learning_rate": 0.05}
NAMES = list(TINY)


def built(name: str, shape: tuple[int, ...] = IMAGES, **parameters: Any) -> Federation:
    return federation(
        {"name": name, **TINY[name], **parameters},
        shape,
        models=["dense-cnn", {"name": "mlp", "hidden": [12]}],
        student="dense-cnn",
        training=TRAINING,
        public=None,
    )


def uploads(fed: Federation) -> dict[int, dict[str, Tensor]]:
    return {client: fed.wire(client, fed.ask(client, 1, Broadcast())) for client in range(3)}


@pytest.mark.parametrize("name", NAMES)
def test_the_record_has_a_point_an_epoch_and_pictures(name: str) -> None:
    fed = built(name)
    ctx = fed.server_context()
    assert fed.method.server(ctx, uploads(fed)) == Broadcast()
    assert len(ctx.curve) == TINY[name]["epochs"]
    assert ctx.curve[-1] == fed.accuracy()
    assert ctx.ensemble is not None
    assert ctx.generated is not None
    assert ctx.generated.x.shape[1:] == IMAGES
    assert 0 <= float(ctx.generated.x.min()) < float(ctx.generated.x.max()) <= 1
    assert set(ctx.generated.y.tolist()) <= set(range(CLASSES))
    assert not fed.student.training


def test_dafl_is_the_way_of_that_name_with_the_clients_ensemble() -> None:
    fed = built("dafl", activation=0.3, entropy=2.0, temperature=2.0, student_learning_rate=0.02)
    sent = uploads(fed)
    ctx = fed.server_context()
    own = fed.setting.build(fed.setting.experiment.student.model, purpose="student")
    net = build_generator(IMAGES, latent=8, width=4, generator=ctx.rng("generator"))
    with Ensemble(list(ctx.load_teachers(sent).values())) as ensemble:
        losses = dafl.train(
            own,
            ensemble,
            net,
            partial(objectives.dafl, activation=0.3, entropy=2.0),
            partial(label.kd, temperature=2.0),
            Optimisation(epochs=2, batch_size=12, learning_rate=0.02),
            ctx.rng("synthesis"),
            classes=CLASSES,
            steps=2,
            latent=8,
            learning_rate=1e-3,
        )
    fed.method.server(ctx, sent)
    assert ctx.losses["distil"] == losses[-1]
    assert all(torch.equal(v, own.state_dict()[k]) for k, v in snapshot(fed.student).items())


def test_adi_is_the_way_of_that_name_with_the_clients_ensemble() -> None:
    weights = {"bn": 0.5, "total_variation": 0.1, "l2": 0.2, "competition": 2.0}
    fed = built("adi", epochs=1, temperature=2.0, **weights)
    sent = uploads(fed)
    ctx = fed.server_context()
    own = fed.setting.build(fed.setting.experiment.student.model, purpose="student")
    with Ensemble(list(ctx.load_teachers(sent).values())) as ensemble:
        batch = synthesis.synthesise(
            adi.Pixels(IMAGES),
            ensemble,
            own,
            partial(objectives.adi, **weights),
            classes=CLASSES,
            steps=3,
            batch_size=12,
            latent=64,
            learning_rate=0.1,
            rng=ctx.rng("synthesis 1"),
        )
    fed.method.server(ctx, sent)
    assert ctx.generated is not None
    assert torch.equal(ctx.generated.x, batch.x)
    assert torch.equal(ctx.generated.y, batch.y)


def test_co_boosting_ends_with_the_ensemble_as_it_weighs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: dict[str, Any] = {}
    train = co_boosting.train

    def watched(*arguments: Any, **options: Any) -> Samples:
        given.update(options, ensemble=arguments[1], how=arguments[4])
        pool = train(*arguments, **options)
        given["weights"] = arguments[1].average.keywords["weights"]
        return pool

    monkeypatch.setattr(co_boosting, "train", watched)
    fed = built("co_boosting", epochs=3, weight_step=0.2)
    sent = uploads(fed)
    ctx = fed.server_context()
    fed.method.server(ctx, sent)
    how = given["how"]
    assert (how.schedule, how.weight_decay, how.batch_size) == ("cosine", 1e-4, 128)
    assert given["perturbation"] == pytest.approx(8 / 255)
    assert given["weights"].tolist() != pytest.approx([1 / 3] * 3)
    each = [evaluate.answers(t, fed.test.x) for t in ctx.load_teachers(sent).values()]
    right = consensus.weighted(torch.stack(each), given["weights"]).argmax(dim=1) == fed.test.y
    assert ctx.ensemble["accuracy"] == pytest.approx(float(right.double().mean()))


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_features_are_refused_before_anything_runs(name: str) -> None:
    fed = built(name)
    fed.method.check(fed.setting)
    rows = federation({"name": name, **TINY[name]}, ROWS)
    with pytest.raises(ConfigError, match=rf"method '{name}' cannot generate inputs of shape \(5"):
        rows.method.check(rows.setting)


def test_under_privacy_adi_needs_no_batchnorm_statistics_and_the_others_read_none() -> None:
    for name, weights, refused in (
        ("adi", {}, True),
        ("adi", {"bn": 0.0}, False),
        ("dafl", {}, False),
        ("co_boosting", {}, False),
    ):
        fed = built(name, **weights)
        setting = protected(fed.setting)
        if refused:
            with pytest.raises(ConfigError, match=r"method\.bn is 1: BatchNorm statistics"):
                fed.method.check(setting)
        else:
            fed.method.check(setting)
