"""FedKT: who is heard, what one record can move, and what its noisy votes cost."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from federations import Federation, federation, generator, tensors
from torch import Tensor

from fedkd.config import Privacy
from fedkd.data.types import Samples
from fedkd.errors import ConfigError, FederationError, UnpaidError
from fedkd.exchange.messages import Upload
from fedkd.federation.prepare import prepare
from fedkd.jobs.audit import teachers as audit
from fedkd.jobs.simulate import simulate
from fedkd.methods.core import accounting
from fedkd.methods.core.base import ClientContext
from fedkd.methods.unlike import fedkt
from fedkd.methods.unlike.fedkt import consistent, divided
from fedkd.privacy import mechanisms
from fedkd.privacy.events import Gaussian
from fedkd.privacy.source import NoiseSource

NOISE, ROWS = 2.0, 12
METHOD = {
    "name": "fedkt",
    "partitions": 2,
    "teachers": 4,
    "public_per_round": ROWS,
    "digest": {"epochs": 1},
}
VOTES = Gaussian("votes of teachers", NOISE, steps=2 * ROWS)


def test_a_client_is_heard_where_its_students_agree() -> None:
    # Three clients of two students each, four samples.
    labels = torch.tensor(
        [
            [[0, 1, 0, 2], [0, 1, 1, 2]],  # client 0 stands for 0, 1, nothing, 2
            [[1, 2, 0, 0], [2, 1, 1, 0]],  # client 1 for nothing, nothing, nothing, 0
            [[1, 2, 1, 1], [1, 2, 2, 2]],  # client 2 for 1, 2, nothing, nothing
        ]
    )
    # 0 against 1: more students say 1. 1 against 2: as many say each, the first. Nobody: 1 has
    # three of six. 2 against 0: three students against two.
    assert consistent(labels, 3).tolist() == [1, 1, 1, 2]
    # One client that agrees outweighs any number of students that contradict themselves.
    torn = torch.tensor([[[2], [2]], *[[[0], [1]]] * 5])
    assert consistent(torn, 3).tolist() == [2]


def test_a_record_less_leaves_all_others_with_their_teachers() -> None:
    whole, less = divided(50, 4, generator(1)), divided(49, 4, generator(1))
    assert sorted(torch.cat(whole).tolist()) == list(range(50))
    assert [part[part < 49].tolist() for part in whole] == [part.tolist() for part in less]
    assert len({len(part) for part in whole}) > 1  # drawn, not dealt


class Paying:
    """An allowance that writes down what it is asked for."""

    def __init__(self) -> None:
        self.spent: list[Gaussian] = []

    def spend(self, event: Gaussian, **_: str) -> None:
        self.spent.append(event)


def protected(fed: Federation, data: Samples) -> ClientContext:
    privacy = Privacy(unit="record", epsilon=8.0, noise_multiplier=NOISE)
    experiment = fed.setting.experiment.model_copy(update={"privacy": privacy})
    ctx = fed.client_context(0)
    return replace(
        ctx, setting=replace(fed.setting, experiment=experiment), _data=data, allowance=Paying()
    )


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, float]]:
    """The votes that get noise, and how much; who teaches whom is drawn alike each time."""
    found: list[tuple[Tensor, float]] = []

    def noisy(votes: Tensor, *, noise: float, source: NoiseSource) -> Tensor:
        found.append((votes, noise))
        return votes.argmax(dim=1)

    monkeypatch.setattr(mechanisms, "noisy_votes", noisy)
    monkeypatch.setattr(NoiseSource, "generator", lambda _: generator(5))
    return found


@pytest.mark.parametrize("rate", [0.3, 1e30], ids=["learning", "diverging"])
def test_one_record_moves_one_vote_a_sample_and_division_and_that_is_paid_for(
    counted: list[tuple[Tensor, float]], rate: float
) -> None:
    how = {"epochs": 4, "batch_size": 4, "learning_rate": rate}
    fed = federation(METHOD, sizes=(40, 8, 8), training=how)
    whole, contexts = fed.data[0], []
    # The last record is one that teaches otherwise than its neighbours.
    odd = Samples(torch.cat([whole.x, 9 * whole.x[:1]]), torch.cat([whole.y, whole.y[:1] - 1]) % 3)
    for data in (whole, odd):
        contexts.append(protected(fed, data))
        fed.method.client(contexts[-1], {})
    assert [ctx.allowance.spent for ctx in contexts] == [[VOTES], [VOTES]]
    votes = [torch.stack([each for each, _ in counted[part : part + 2]]) for part in (0, 2)]
    moved = (votes[1] - votes[0]).double().norm(dim=2)
    assert moved.max() <= math.sqrt(2) * (1 + 1e-9)
    assert rate > 1 or moved.max() > 0
    assert all(noise == pytest.approx(NOISE * math.sqrt(2)) for _, noise in counted)


def test_what_leaves_comes_of_the_paid_votes_and_of_no_data_that_nobody_paid_for(
    counted: list[tuple[Tensor, float]],
) -> None:
    fed = federation(METHOD)
    ctx = protected(fed, fed.data[0])
    upload: Upload = fed.method.client(ctx, {})
    assert {str(value.provenance) for value in upload.values.values()} == {
        f"post-processing of {VOTES}"
    }
    with pytest.raises(UnpaidError):
        _ = ctx.data


def test_teachers_draw_from_streams_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a teacher's dropout draws does not depend on how much those before it drew."""
    fed, seen = federation(METHOD), dict[str, list[float]]()
    alone = fedkt._alone

    @contextmanager
    def watched(ctx: ClientContext, purpose: str) -> Iterator[None]:
        with alone(ctx, purpose):
            seen.setdefault(purpose, []).append(float(torch.rand(1)))
            torch.rand(int(100 * torch.rand(1)))
            yield

    monkeypatch.setattr(fedkt, "_alone", watched)
    for size in (24, 16):
        fed.method.client(protected(fed, fed.data[0].subset(torch.arange(size))), {})
    assert len(seen) == 8
    assert all(first == second for first, second in seen.values())
    assert len({first for first, _ in seen.values()}) == 8


def test_a_client_that_is_not_protected_says_that_it_diverged() -> None:
    how = {"epochs": 4, "batch_size": 4, "learning_rate": 1e30}
    fed = federation(METHOD, training=how)
    with pytest.raises(FederationError, match="diverged"):
        fed.ask(0, 1, fed.begin())


def test_as_many_students_travel_as_there_are_divisions() -> None:
    fed = federation(METHOD)
    sent = tensors(fed.ask(0, 1, fed.begin()))
    assert {name.split("/")[1] for name in sent} == {"0", "1"}
    assert not torch.equal(
        sent["students/0/classifier.weight"], sent["students/1/classifier.weight"]
    )


def private(rows: Path, **changes: Any) -> Any:
    how = {"epochs": 30, "learning_rate": 0.2}
    method = {"name": "fedkt", "partitions": 1, "teachers": 3, "digest": how, "student": how}
    # So much that little noise is left: this is about what is paid for, not about the price.
    budget = {"epsilon": 500.0, "sample_rate": 0.5, "batch_size": 20}
    training = {"epochs": 20, "batch_size": 8, "learning_rate": 0.1}
    made = {"method": method, "rounds": 1, "privacy": budget, "clients.training": training}
    return tiny.experiment(rows, made | changes)


def test_a_private_run_pays_for_its_votes_and_for_nothing_else(rows: Path, tmp_path: Path) -> None:
    experiment = private(rows)
    ready = prepare(experiment)
    [event] = set(accounting.plan(ready.method, ready.setting))
    assert (event.what, event.steps) == ("votes of teachers", len(ready.setting.proxy))
    summary = simulate(experiment, tmp_path / "run", tiny.Quiet())
    [students] = [each for each in summary["released"] if each["field"] == "students"]
    assert students["provenance"].startswith("post-processing of votes of teachers, Gaussian")
    assert summary["student"]["accuracy"] > 0.5
    with pytest.raises(ConfigError, match="'fedkt' takes noisy votes of teachers, and no teacher"):
        audit.audit_teacher(experiment, lambda *_: None)


def test_noise_that_drowns_all_teachers_is_refused(rows: Path) -> None:
    with pytest.raises(ConfigError, match="unanimous teachers over the noise"):
        prepare(private(rows, **{"privacy.epsilon": 0.02}))
