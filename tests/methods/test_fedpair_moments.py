"""fedpair with sums of features: the anchor is that of the pooled data, and is added."""

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from federations import (
    CLASSES,
    IMAGES,
    ROWS,
    Federation,
    equal,
    federation,
    protected,
    samples,
    snapshot,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedkd.errors import ConfigError
from fedkd.exchange.messages import Broadcast
from fedkd.knowledge.moments import symmetric
from fedkd.learning import consensus, evaluate
from fedkd.learning.closed_form import features_of
from fedkd.learning.consensus_by_pairs import by_pairs
from fedkd.methods.core import protection
from fedkd.methods.fedpair_moments import FedPairMoments

NARROW = {"name": "random-filters", "filters": 4, "pool": 2}
WIDTH = 17
POOLED = samples(70, IMAGES, 5)
UNEVEN = (torch.arange(70) ** 2) % 7 // 3


def built(owner: Tensor = UNEVEN, shape: tuple[int, ...] = IMAGES, **changes: Any) -> Federation:
    """Client owner[i] holds record i of the pooled data."""
    count = int(owner.max()) + 1
    params = {"features": NARROW, "images": 60, "epochs": 1, "ridge": 1e-3, **changes}
    method = {"name": "fedpair_moments", **params}
    training = {"epochs": 1, "batch_size": 8, "learning_rate": 0.05}
    fed = federation(method, shape, (1,) * count, count=count, public=None, training=training)
    if shape == IMAGES:
        fed.data = [POOLED.subset((owner == k).nonzero().flatten()) for k in range(count)]
    return fed


def uploads(fed: Federation) -> dict[int, dict[str, Tensor]]:
    everybody = range(fed.setting.clients)
    return {client: fed.wire(client, fed.ask(client, 1, Broadcast())) for client in everybody}


def method_of(fed: Federation) -> FedPairMoments:
    assert isinstance(fed.method, FedPairMoments)
    return fed.method


def anchor_of(fed: Federation, sent: dict[int, dict[str, Tensor]]) -> nn.Module:
    return method_of(fed).teachers(fed.server_context(), sent)[-1]


def phi(fed: Federation, x: Tensor) -> Tensor:
    front = fed.setting.build(method_of(fed).params.features, purpose="features")
    return F.pad(features_of(front, x).double(), (0, 1), value=0.3)


def closed_form(fed: Federation, x: Tensor) -> Tensor:
    """Ridge on all records at one place by least squares, as logits of x."""
    rows, targets = phi(fed, POOLED.x), F.one_hot(POOLED.y, CLASSES).double()
    penalty = 1e-3 * rows.square().sum() / WIDTH
    stacked = torch.cat([rows, penalty.sqrt() * torch.eye(WIDTH).double()])
    targets = torch.cat([targets, torch.zeros(WIDTH, CLASSES).double()])
    return phi(fed, x) @ torch.linalg.lstsq(stacked, targets).solution


def test_a_client_sends_two_sums_beside_its_model_and_counts() -> None:
    fed = built()
    fed.method.check(fed.setting)
    for client, upload in uploads(fed).items():
        spec = fed.setting.experiment.client_model(client)
        names = {*fed.setting.model_specs(spec), "counts", "features", "labels"}
        assert set(upload) == names
        rows, y = phi(fed, fed.data[client].x), F.one_hot(fed.data[client].y, CLASSES).double()
        assert upload["features"].dtype == upload["labels"].dtype == torch.float32
        gram = symmetric(upload["features"].double(), WIDTH)
        torch.testing.assert_close(gram, rows.T @ rows, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(upload["labels"].double(), rows.T @ y, rtol=1e-5, atol=1e-5)
        receipt = fed.ask(client, 1, Broadcast()).values["features"].provenance
        assert "sums of features" in str(receipt)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 5), st.integers(0, 2**31))
def test_the_anchor_is_the_closed_form_on_all_records_whoever_holds_them(
    parties: int, seed: int
) -> None:
    owner = torch.randint(parties, (70,), generator=torch.Generator().manual_seed(seed))
    owner[:parties] = torch.arange(parties)
    fed = built(owner)
    found = evaluate.answers(anchor_of(fed, uploads(fed)), fed.test.x).double()
    torch.testing.assert_close(found, closed_form(fed, fed.test.x), rtol=1e-3, atol=2e-3)


def pairs(fed: Federation, logits: Tensor, counts: Tensor) -> Tensor:
    params = method_of(fed).params
    return by_pairs(logits, counts, absolute=params.absolute, own_error=params.own_error)


@pytest.mark.parametrize("how", ["pairs", "probabilities", "logits", "classes"])
def test_what_the_anchor_says_is_added_to_the_consensus_of_the_others(how: str) -> None:
    fed = built(consensus=how, anchor=7.0)
    sent = uploads(fed)
    together = method_of(fed).consensus(fed.server_context(), sent)
    draws = torch.Generator().manual_seed(1)
    logits = torch.randn(fed.setting.clients + 1, 9, CLASSES, generator=draws)
    counts = torch.stack([upload["counts"] for upload in sent.values()])
    own = {
        "pairs": pairs(fed, logits[:-1], counts),
        "probabilities": consensus.average_probabilities(logits[:-1]),
        "logits": logits[:-1].mean(dim=0),
        "classes": consensus.by_class(logits[:-1], counts),
    }
    torch.testing.assert_close(together(logits), own[how] + 7 * logits[-1])


def test_with_one_class_a_client_the_ensemble_knows_all_classes() -> None:
    fed = built(POOLED.y)
    ctx = fed.server_context()
    sent = uploads(fed)
    assert [upload["counts"].count_nonzero().item() for upload in sent.values()] == [1] * CLASSES
    assert fed.method.server(ctx, sent) == Broadcast()
    assert ctx.ensemble is not None
    assert ctx.ensemble["accuracy"] > 0.9
    each = [evaluate.answers(t, fed.test.x) for t in method_of(fed).teachers(ctx, sent)]
    counts = torch.stack([upload["counts"] for upload in sent.values()])
    scores = pairs(fed, torch.stack(each[:-1]), counts) + 10 * each[-1]
    right = scores.argmax(dim=1) == fed.test.y
    assert ctx.ensemble["accuracy"] == pytest.approx(float(right.double().mean()))


def test_without_records_behind_the_sums_the_anchor_is_silent() -> None:
    fed = built()
    sent = uploads(fed)
    for upload in sent.values():
        upload["features"].zero_()
        upload["labels"].zero_()
    assert not evaluate.answers(anchor_of(fed, sent), fed.test.x).any()


def test_differential_privacy_is_refused_with_its_reason() -> None:
    fed = built()
    with pytest.raises(ConfigError, match="cannot run under 'record': its sums would need a bound"):
        protection.resolve(fed.method, protected(fed.setting))


class Pooled(nn.Module):
    """Means over a grid of 2 x 2, and a linear layer: an extractor of one's own."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(4 * shape[0], classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(x, 2).flatten(1))
        return logits


class Squashed(Pooled):
    """The same, and something behind the last layer."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).tanh()


@pytest.fixture
def mine() -> Iterator[str]:
    module = ModuleType("my_features")
    module.Pooled, module.Squashed = Pooled, Squashed  # type: ignore[attr-defined]
    sys.modules["my_features"] = module
    yield "my_features"
    del sys.modules["my_features"]


def test_features_come_of_one_s_own_model_by_import_path(mine: str) -> None:
    fed = built(features=f"{mine}:Pooled")
    fed.method.check(fed.setting)
    sent = uploads(fed)
    assert sent[0]["labels"].shape == (5, CLASSES)
    ctx = fed.server_context()
    fed.method.server(ctx, sent)
    assert ctx.ensemble is not None
    refused = built(features=f"{mine}:Squashed")
    with pytest.raises(ConfigError, match="'Squashed' does not end in a linear layer"):
        refused.method.check(refused.setting)


def test_rows_of_features_are_refused_before_anything_runs() -> None:
    fed = built(shape=ROWS)
    with pytest.raises(ConfigError, match="'fedpair_moments' cannot generate inputs of shape"):
        fed.method.check(fed.setting)


def test_the_same_seed_is_the_same_student_and_threads_do_not_change_it() -> None:
    students = []
    for threads in (1, 3):
        fed = built()
        fed.method.server(fed.server_context(threads=threads), uploads(fed))
        students.append(snapshot(fed.student))
    assert equal(*students)
