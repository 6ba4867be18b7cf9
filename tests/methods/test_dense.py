"""DENSE as a method: one shot, images only, the student follows the ensemble."""

from typing import Any

import pytest
import torch
from federations import CLASSES, IMAGES, ROWS, Federation, federation
from torch import Tensor

from fedkd.errors import ConfigError
from fedkd.exchange.messages import Broadcast
from fedkd.learning import evaluate
from fedkd.methods.core import one_shot
from fedkd.models.generators import ImageGenerator, build_generator

TINY = {"epochs": 3, "steps": 4, "batch_size": 12, "latent": 8, "width": 4}
SIZES = (60, 50, 40)


def built(shape: tuple[int, ...] = IMAGES, **parameters: Any) -> Federation:
    training = {"epochs": 8, "batch_size": 10, "learning_rate": 0.05}
    return federation(
        {"name": "dense", **TINY, **parameters},
        shape,
        SIZES,
        models=["dense-cnn", {"name": "mlp", "hidden": [12]}],
        student="dense-cnn",
        training=training,
        public=None,
    )


def uploads(fed: Federation) -> dict[int, dict[str, Tensor]]:
    return {client: fed.wire(client, fed.ask(client, 1, Broadcast())) for client in range(3)}


def test_the_student_learns_what_the_teachers_know_from_made_up_images() -> None:
    fed = built(epochs=15, steps=12, batch_size=48, width=8, student_learning_rate=0.01)
    models = uploads(fed)
    ctx = fed.server_context()
    teachers = ctx.load_teachers(models).values()
    ensemble = torch.stack([evaluate.answers(t, fed.test.x) for t in teachers]).mean(dim=0)
    answers = ensemble.argmax(dim=1)

    def agreement() -> float:
        mine = evaluate.answers(fed.student, fed.test.x).argmax(dim=1)
        return float((mine == answers).double().mean())

    before = agreement()
    fed.method.server(ctx, models)
    assert agreement() > max(0.75, before + 0.2)
    assert ctx.ensemble["accuracy"] == pytest.approx(
        float((answers == fed.test.y).double().mean()), abs=1e-9
    )
    assert ctx.curve[-1] == fed.accuracy()


def test_the_record_holds_every_batch_and_a_point_for_each() -> None:
    fed = built()
    ctx = fed.server_context()
    assert fed.method.server(ctx, uploads(fed)) == Broadcast()
    assert len(ctx.curve) == TINY["epochs"]
    assert ctx.generated is not None
    x, y = ctx.generated.x, ctx.generated.y
    assert x.shape == (TINY["epochs"] * TINY["batch_size"], *IMAGES)
    assert 0 <= float(x.min()) < float(x.max()) <= 1
    assert y.dtype == torch.int64
    assert set(y.tolist()) <= set(range(CLASSES))
    assert len(y) == len(x)
    assert ctx.losses["distil"] >= 0


def test_each_batch_has_a_fresh_generator_of_its_own_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starts: list[Tensor] = []

    def watched(*arguments: Any, **options: Any) -> ImageGenerator:
        net = build_generator(*arguments, **options)
        starts.append(torch.cat([p.detach().clone().flatten() for p in net.parameters()]))
        return net

    monkeypatch.setattr(one_shot, "build_generator", watched)
    fed = built()
    ctx = fed.server_context()
    fed.method.server(ctx, uploads(fed))
    assert len(starts) == TINY["epochs"]
    assert not torch.equal(starts[0], starts[1])
    assert ctx.generated is not None
    first, second, _ = ctx.generated.x.split(TINY["batch_size"])
    assert not torch.equal(first, second)


def test_threads_do_not_change_the_student() -> None:
    students, pictures = [], []
    for threads in (1, 3):
        fed = built()
        ctx = fed.server_context(threads=threads)
        fed.method.server(ctx, uploads(fed))
        students.append(torch.cat([p.detach().flatten() for p in fed.student.parameters()]))
        assert ctx.generated is not None
        pictures.append(ctx.generated.x)
    assert torch.equal(*students)
    assert torch.equal(*pictures)


def test_a_model_is_sent_without_a_count() -> None:
    fed = built()
    assert not any("count" in name for name in fed.method.expects(fed.setting, 0))


def test_rows_of_features_are_refused_before_anything_runs() -> None:
    fed = federation({"name": "dense", **TINY}, ROWS)
    with pytest.raises(ConfigError, match=r"method 'dense' cannot generate inputs of shape \(5,\)"):
        fed.method.check(fed.setting)
    built().method.check(built().setting)
