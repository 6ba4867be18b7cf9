"""FedKT: who is heard, what one record can move, and what its noisy votes cost."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from federations import Federation, Paying, federation, generator, paying, tensors
from scipy import stats
from torch import Tensor, nn

from fedkd.config import Privacy
from fedkd.data.types import Samples
from fedkd.errors import ConfigError, FederationError, UnpaidError
from fedkd.exchange.messages import Upload
from fedkd.federation.prepare import prepare
from fedkd.jobs.simulate import simulate
from fedkd.methods.core import accounting
from fedkd.methods.core.base import ClientContext
from fedkd.methods.unlike import fedkt
from fedkd.methods.unlike.fedkt import consistent, divided
from fedkd.privacy import accountant, mechanisms
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
    whole, less = (divided(count, 2, 4, generator(1)) for count in (50, 49))
    assert torch.equal(whole[:49], less)
    assert not torch.equal(whole[:, 0], whole[:, 1])
    sizes = torch.bincount(whole[:, 0], minlength=4)
    assert len(sizes) == 4
    assert len(set(sizes.tolist())) > 1  # drawn, not dealt


def protected(fed: Federation, data: Samples) -> tuple[ClientContext, Paying]:
    return paying(fed, Privacy(unit="record", epsilon=8.0, noise_multiplier=NOISE), data)


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


def broken(ctx: ClientContext, model: nn.Module, rows: list[Tensor], loss: Any) -> None:
    if (rows[0] > 5).any():  # only the odd record is so bright
        raise ValueError("a layer that cannot stand this record")


@pytest.mark.parametrize("fault", ["", "diverging", "breaking"])
def test_one_record_moves_one_vote_a_sample_and_division_and_that_is_paid_for(
    counted: list[tuple[Tensor, float]], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = {"epochs": 4, "batch_size": 4, "learning_rate": 1e30 if fault == "diverging" else 0.3}
    if fault == "breaking":
        monkeypatch.setattr(ClientContext, "fit", broken)
    fed = federation(METHOD, sizes=(40, 8, 8), training=how)
    whole = fed.data[0]
    # The last record is one that teaches otherwise than its neighbours.
    odd = Samples(torch.cat([whole.x, 9 * whole.x[:1]]), torch.cat([whole.y, whole.y[:1] - 1]) % 3)
    for data in (whole, odd):
        ctx, allowance = protected(fed, data)
        fed.method.client(ctx, {})
        assert allowance.spent == [VOTES]
    moved = (counted[1][0] - counted[0][0]).double().norm(dim=1)
    assert len(moved) == 2 * ROWS
    assert moved.max() <= math.sqrt(2) * (1 + 1e-9)
    assert fault or moved.max() > 0
    assert all(noise == pytest.approx(NOISE * math.sqrt(2)) for _, noise in counted)


def test_votes_cost_what_one_gaussian_release_of_all_of_them_does() -> None:
    """By the closed form of Balle & Wang 2018, arXiv:1805.06530, not by the accountant's."""
    fed = federation(METHOD)
    ctx, _ = protected(fed, fed.data[0])
    event = fed.method.voting(ctx.setting).event(ctx.setting)
    epsilon = accountant.epsilon([event], 1e-5)
    # A vote that changes on each of 2 * ROWS queries moves two counts of each, all with noise.
    apart = math.sqrt(2 * 2 * ROWS) / (math.sqrt(2) * NOISE)
    below = (stats.norm.cdf(sign * apart / 2 - epsilon / apart) for sign in (1, -1))
    delta = next(below) - math.exp(epsilon) * next(below)
    assert delta == pytest.approx(1e-5, rel=0.02)


def test_what_leaves_comes_of_the_paid_votes_and_of_no_data_that_nobody_paid_for(
    counted: list[tuple[Tensor, float]],
) -> None:
    fed = federation(METHOD)
    ctx, _ = protected(fed, fed.data[0])
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
        ctx, _ = protected(fed, fed.data[0].subset(torch.arange(size)))
        fed.method.client(ctx, {})
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


def test_noise_that_drowns_all_teachers_is_refused(rows: Path) -> None:
    with pytest.raises(ConfigError, match="unanimous teachers over the noise"):
        prepare(private(rows, **{"privacy.epsilon": 0.02}))
