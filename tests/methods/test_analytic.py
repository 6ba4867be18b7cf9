"""The closed form: whoever holds which record, with a proxy set's components, and under noise."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from federations import CLASSES, IMAGES, SMALL, Federation, federation, samples, tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from fedkd import config, models, optional
from fedkd.data.types import Samples
from fedkd.errors import ConfigError, UnpaidError
from fedkd.exchange.gate import release
from fedkd.exchange.messages import Release
from fedkd.knowledge.moments import (
    ROUNDING,
    Correlations,
    correlated,
    moments,
    penalty_of,
    restored,
    ridge,
    total,
)
from fedkd.learning.closed_form import features_of
from fedkd.learning.dp.checks import check_features
from fedkd.methods.core import accounting, protection, sums
from fedkd.models import call
from fedkd.privacy.events import Event, Gaussian

NARROW = {"name": "random-filters", "filters": 4, "pool": 2}
POOLED = samples(70, IMAGES, 5)


def built(owner: Tensor | None = None, *, privacy: Any = None, **params: Any) -> Federation:
    """A federation in which client owner[i] holds record i of the pooled data."""
    owner = torch.arange(70) % 3 if owner is None else owner
    count = int(owner.max()) + 1
    method = {"name": "analytic", "ridge": 1e-3, **params}
    fed = federation(method, IMAGES, (1,) * count, student=NARROW, count=count)
    fed.data = [POOLED.subset((owner == k).nonzero().flatten()) for k in range(count)]
    if privacy is not None:
        chosen = config.Privacy(unit="record", epsilon=8.0, **privacy)
        experiment = fed.setting.experiment.model_copy(update={"privacy": chosen})
        fed.setting = replace(fed.setting, experiment=experiment)
    return fed


def fitted(fed: Federation) -> nn.Linear:
    fed.round(1, fed.begin())
    layer = fed.student.get_submodule("classifier")
    assert isinstance(layer, nn.Linear)
    return layer


def closed_form(fed: Federation, data: Samples) -> Tensor:
    """Ridge on all records at one place by least squares, as logits of the test set."""

    def phi(x: Tensor) -> Tensor:
        return F.pad(features_of(fed.student, x).double(), (0, 1), value=0.3)

    rows, targets = phi(data.x), F.one_hot(data.y, CLASSES).double()
    penalty = 1e-3 * rows.square().sum() / rows.shape[1]
    extra = penalty.sqrt() * torch.eye(rows.shape[1]).double()
    nothing = torch.zeros(rows.shape[1], CLASSES).double()
    stacked = torch.cat([rows, extra]), torch.cat([targets, nothing])
    return phi(fed.test.x) @ torch.linalg.lstsq(*stacked).solution


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**31))
def test_the_student_does_not_depend_on_who_holds_which_record(parties: int, seed: int) -> None:
    owner = torch.randint(parties, (70,), generator=torch.Generator().manual_seed(seed))
    fed, alone = built(owner), built(torch.zeros(70).long())
    sums = [
        {n: sum(tensors(each.ask(c, 1, each.begin()))[n] for c in range(each.setting.clients))
         for n in ("features", "labels")}
        for each in (fed, alone)
    ]  # fmt: skip
    for name in ("features", "labels"):
        torch.testing.assert_close(sums[0][name], sums[1][name], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fitted(fed).weight, fitted(alone).weight, rtol=1e-6, atol=1e-6)


def test_the_student_is_the_closed_form_on_all_records() -> None:
    fed = built()
    fitted(fed)
    with torch.no_grad():
        answers = fed.student.eval()(fed.test.x).double()
    torch.testing.assert_close(answers, closed_form(fed, POOLED), rtol=1e-4, atol=1e-4)
    assert fed.accuracy() > 0.9


def test_float32_halves_the_bytes_and_hardly_changes_the_student() -> None:
    single, double = built(precision="float32"), built()
    sent = [sum(r.bytes for r in release(fed.ask(0, 1, fed.begin()))) for fed in (single, double)]
    width = 4 * 2**2 + 1
    assert sent == [size * (width * (width + 1) // 2 + width * CLASSES) for size in (4, 8)]
    torch.testing.assert_close(fitted(single).weight, fitted(double).weight, rtol=1e-3, atol=1e-3)


def test_all_components_without_whitening_are_the_features_themselves() -> None:
    most = {"components": 16, "whitening": 0.0, "ridge": 1e-9}
    plain, rotated = built(ridge=1e-9), built(**most)
    weights = [fitted(fed) for fed in (plain, rotated)]
    with torch.no_grad():
        first, second = (fed.student.eval()(fed.test.x) for fed in (plain, rotated))
    assert (first.argmax(dim=1) == second.argmax(dim=1)).float().mean() > 0.95
    assert weights[0].weight.shape == weights[1].weight.shape
    few = built(components=3)
    assert tensors(few.ask(0, 1, few.begin()))["labels"].shape == (4, CLASSES)
    fitted(few)
    assert few.accuracy() > 0.6


def test_what_leaves_says_that_nothing_protects_it() -> None:
    fed = built()
    found = {r.field: r.provenance for r in release(fed.ask(0, 1, fed.begin()))}
    assert found == dict.fromkeys(("features", "labels"), "release: sums of features, no DP")


class Account:
    """An allowance that allows everything, and writes down what it is asked for."""

    def __init__(self) -> None:
        self.spent: list[Event] = []

    def spend(self, event: Event, **_: str) -> None:
        self.spent.append(event)


def private(fed: Federation, round: int = 1) -> tuple[dict[str, Tensor], Account]:
    """What client 0 sends under an allowance, and what it pays."""
    ctx, account = fed.client_context(0, round), Account()
    ctx.allowance = account  # type: ignore[assignment]
    upload = fed.method.client(ctx, fed.begin().common)
    events = {v.provenance.event if isinstance(v.provenance, Release) else v.provenance.of
              for v in upload.values.values()}  # type: ignore[union-attr]  # fmt: skip
    assert events == {fed.setting.summing("sums of features")}
    return tensors(upload), account


def test_under_dp_both_sums_are_one_event_and_are_drawn_once() -> None:
    fed = built(privacy={"noise_multiplier": 2.0})
    first, account = private(fed)
    assert account.spent == [Gaussian("sums of features", 2.0)]
    again, later = private(fed, round=2)
    assert later.spent == []
    assert all(torch.equal(first[name], again[name]) for name in first)
    other, _ = private(built(privacy={"noise_multiplier": 2.0}))
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_under_dp_features_are_clipped_before_they_are_summed() -> None:
    barely = {"noise_multiplier": 1e-9, "clip": 0.25}
    fed = built(privacy=barely)
    sent, _ = private(fed)
    diagonal = sent["features"][torch.tensor([17 * k - k * (k - 1) // 2 for k in range(17)])]
    size = len(fed.data[0])
    # Features have norm 1: each is cut to 0.25, and the constant stands beside it.
    assert float(diagonal[:-1].sum()) == pytest.approx(size * 0.25**2, rel=1e-5)
    assert float(diagonal[-1]) == pytest.approx(size * 0.3**2, rel=1e-5)


def test_under_dp_the_noise_is_for_one_record_at_the_clip() -> None:
    fed = built(privacy={"noise_multiplier": 1.5, "clip": 2.0}, balance=0.5)
    draws = [private(built(privacy={"noise_multiplier": 1.5, "clip": 2.0}, balance=0.5))[0]
             for _ in range(40)]  # fmt: skip
    exact, _ = private(built(privacy={"noise_multiplier": 1e-9, "clip": 2.0}))
    bound = 2.0**2 + 0.3**2  # squared: the norm of phi phi^T
    scale = 1.5 * bound * (1 + 0.5**2) ** 0.5
    off = torch.tensor([i for i in range(153) if i not in
                        {17 * k - k * (k - 1) // 2 for k in range(17)}])  # fmt: skip
    noise = torch.stack([each["features"][off] - exact["features"][off] for each in draws])
    assert float(noise.std()) == pytest.approx(scale / 2**0.5, rel=0.05)
    noise = torch.stack([each["labels"] - exact["labels"] for each in draws])
    assert float(noise.std()) == pytest.approx(scale / (0.5 * bound**0.5), rel=0.05)
    assert fed.setting.features_norm(0.3) ** 2 == pytest.approx(bound)


def test_the_plan_is_one_gaussian_release_and_no_training() -> None:
    fed = built(privacy={"noise_multiplier": 2.0})
    events = [Gaussian("sums of features", 2.0)]
    assert accounting.plan(fed.method, fed.setting) == events
    assert accounting.round_events(fed.method, fed.setting, ["sums of features"]) == []
    needed = protection.resolve(fed.method, built(privacy={}).setting).experiment.privacy
    assert needed.noise_multiplier == pytest.approx(0.600, abs=0.01)  # epsilon 8, delta 1e-5


def test_private_data_stays_closed_to_the_method() -> None:
    ctx = built(privacy={"noise_multiplier": 2.0}).client_context(0)
    ctx.allowance = Account()  # type: ignore[assignment]
    with pytest.raises(UnpaidError, match=r"ctx\.moments"):
        _ = ctx.data


def test_noise_raises_the_penalty_by_the_public_figures_alone() -> None:
    fed = built(privacy={"noise_multiplier": 5.0})
    uploads = {c: fed.wire(c, built().ask(c, 1, fed.begin())) for c in range(3)}
    fed.method.server(fed.server_context(), uploads)
    phi = F.pad(features_of(fed.student, POOLED.x).double(), (0, 1), value=0.3)
    noise = 5.0 * (1 + 0.3**2) * 2**0.5 * (2 * 17 * 3) ** 0.5  # of three clients' sums
    gram = phi.T @ phi + 0.2 * noise * torch.eye(17).double()
    expected = torch.linalg.solve(gram, phi.T @ F.one_hot(POOLED.y, CLASSES).double())
    found = fed.student.get_submodule("classifier")
    assert isinstance(found, nn.Linear)
    torch.testing.assert_close(found.weight.double(), expected[:-1].T, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.bias.double(), 0.3 * expected[-1], rtol=1e-5, atol=1e-6)


def securely(**privacy: Any) -> Federation:
    """Three clients of whom all must answer, under noise and secure aggregation."""
    fed = built(privacy={"noise_multiplier": 5.0, "secure_aggregation": True, **privacy})
    experiment = fed.setting.experiment
    all_of_them = experiment.clients.model_copy(update={"quorum": 1.0})
    changed = experiment.model_copy(update={"clients": all_of_them})
    fed.setting = replace(fed.setting, experiment=changed)
    return fed


def test_of_a_secure_sum_the_penalty_is_that_of_one_release() -> None:
    fed, plain = securely(), built()
    uploads = [fed.wire(c, plain.ask(c, 1, fed.begin())) for c in range(3)]
    ctx = fed.server_context()
    ctx.summed = 3
    fed.method.server(
        ctx, {0: {n: torch.stack([u[n] for u in uploads]).sum(0) for n in uploads[0]}}
    )
    phi = F.pad(features_of(fed.student, POOLED.x).double(), (0, 1), value=0.3)
    noise = 5.0 * (1 + 0.3**2) * 2**0.5 * (2 * 17) ** 0.5
    gram = phi.T @ phi + 0.2 * noise * torch.eye(17).double()
    expected = torch.linalg.solve(gram, phi.T @ F.one_hot(POOLED.y, CLASSES).double())
    found = fed.student.get_submodule("classifier")
    assert isinstance(found, nn.Linear)
    torch.testing.assert_close(found.weight.double(), expected[:-1].T, rtol=1e-5, atol=1e-6)


def test_secure_sums_are_not_rounded_whatever_their_precision() -> None:
    """Of a client with small sums float32 keeps finer steps than of others, which a sum shows."""
    noisy = {"noise_multiplier": 5.0, "secure_aggregation": True}
    sent, _ = private(built(precision="float32", privacy=noisy))
    assert {each.dtype for each in sent.values()} == {torch.float64}
    rounded, _ = private(built(precision="float32", privacy={"noise_multiplier": 5.0}))
    assert {each.dtype for each in rounded.values()} == {torch.float32}


def test_secure_sums_are_held_inside_half_of_the_range_before_the_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fed = securely(noise_multiplier=1e-9)
    free, _ = private(fed)
    monkeypatch.setattr(sums, "most", lambda parties: 6.0 / parties)
    held, _ = private(fed)
    for name in ("features", "labels"):
        assert float(free[name].abs().max()) > 1.1
        torch.testing.assert_close(held[name], free[name].clamp(-1, 1), rtol=0, atol=1e-6)


def test_a_secure_sum_is_drawn_and_paid_for_in_each_round() -> None:
    fed = securely()
    event = Gaussian("sums of features, summed over clients", 5.0)
    first, account = private(fed)
    again, later = private(fed, round=2)
    assert account.spent == later.spent == [event]
    assert not any(torch.equal(first[name], again[name]) for name in first)
    longer = fed.setting.experiment.model_copy(update={"rounds": 3})
    planned = accounting.plan(fed.method, replace(fed.setting, experiment=longer))
    assert planned == [event] * 3
    assert accounting.round_events(fed.method, fed.setting, ["sums of features"]) == [event]


class Coupled(nn.Module):
    """A model that centres its batch, so that one record moves all others' features."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(5, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(x - x.mean(dim=0))  # type: ignore[no-any-return]


class Branch(Coupled):
    """One of two layers, by the mean of the batch: alike where all inputs are."""

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(x if x.mean() < 1 else 2 * x)  # type: ignore[no-any-return]


def test_features_that_touch_each_other_are_refused_and_frozen_statistics_are_not() -> None:
    with pytest.raises(ConfigError, match="depend on the other samples"):
        check_features(Coupled((5,), 3), (5,))
    with pytest.raises(ConfigError, match="seen beside samples very large"):
        check_features(Branch((5,), 3), (5,), like=torch.rand(20, 5))
    norm = nn.Sequential(nn.BatchNorm1d(5), nn.Dropout(), nn.Linear(5, 3))
    check_features(norm, (5,))
    assert norm.training


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"components": 17}, "method.components is 17: expected at most 16"),
        ({"components": 3, "public": None}, "there is no proxy set to find them on"),
    ],
)
def test_components_that_cannot_be_found_are_refused(changes: dict[str, Any], message: str) -> None:
    public = {"public": changes.pop("public")} if "public" in changes else {}
    fed = federation({"name": "analytic", **changes}, IMAGES, student=NARROW, **public)
    with pytest.raises(ConfigError, match=message):
        fed.method.check(fed.setting)


def test_a_model_that_does_not_end_in_its_classes_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fed = federation("analytic", student=SMALL)
    fed.method.check(fed.setting)
    squashed = nn.Sequential(nn.Linear(5, CLASSES), nn.Tanh())
    monkeypatch.setattr(type(fed.setting), "build", lambda *_, **__: squashed)
    with pytest.raises(ConfigError, match="does not end in a linear layer with 3 outputs"):
        fed.method.check(fed.setting)


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 5), st.integers(0, 2**31))
def test_sums_in_float16_are_the_pooled_ones_to_the_stated_bound(parties: int, seed: int) -> None:
    """2^-12 of each client's scatter's trace, and for the weights what that makes of them."""
    owner = torch.randint(parties, (70,), generator=torch.Generator().manual_seed(seed))
    fed = built(owner, precision="float16", ridge=0.1)
    given = {c: tensors(fed.ask(c, 1, fed.begin())) for c in range(fed.setting.clients)}
    found = total(restored(Correlations(**each), 0.3) for each in given.values())
    phi = [F.pad(features_of(fed.student, d.x).double(), (0, 1), value=0.3) for d in fed.data]
    rows, y = torch.cat(phi), torch.cat([d.y for d in fed.data])
    exact = moments(rows, y, CLASSES)
    traces = sum(float((each - each.mean(dim=0)).square().sum()) for each in phi if len(each))
    # Beside it float32's roots and means: 2^-22 of all squares is more than they come to.
    bound = ROUNDING * traces + 2.0**-22 * float(rows.square().sum())
    off = float((found.features - exact.features).norm())
    assert off <= bound
    torch.testing.assert_close(found.labels, exact.labels, rtol=2.0**-23, atol=0)
    # Solutions of (A + penalty) W = B move by |dA| |W| / penalty, and once more for eigenvalues
    # that were cut off at 0.
    penalty = penalty_of(exact, 0.1)
    expected = ridge(exact, penalty)
    moved = float((ridge(found, penalty) - expected).norm() / expected.norm())
    assert 0 < moved <= 2 * bound / penalty + 2.0**-20
    fitted(fed)
    assert fed.accuracy() > 0.9


def test_float16_quarters_the_bytes_and_masks_keep_their_own_form() -> None:
    fed = built(precision="float16")
    sent = sum(r.bytes for r in release(fed.ask(0, 1, fed.begin())))
    assert sent == 2 * (16 * 15 // 2) + 4 * 16 + 4 * 17 * CLASSES
    expected = securely().method.expects(securely().setting, 0)
    masked = built(precision="float16", privacy={"secure_aggregation": True})
    assert masked.method.expects(masked.setting, 0) == expected
    noisy = built(precision="float16", privacy={"noise_multiplier": 2.0})
    with pytest.raises(ConfigError, match=r"method\.precision is 'float16', which writes sums as"):
        noisy.method.check(noisy.setting)


def test_one_record_and_constant_features_have_correlations_of_nothing() -> None:
    phi = F.pad(torch.tensor([[1.0, 2.0], [1.0, 3.0]]).double(), (0, 1), value=0.3)
    for rows in (phi[:1], phi):
        exact = moments(rows, torch.zeros(len(rows)).long(), CLASSES)
        found = restored(correlated(exact), 0.3)
        for one, other in zip(found, exact, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_the_discriminant_is_bayes_rule_of_gaussians_with_one_covariance() -> None:
    fed = built(head="lda", ridge=1e-3)
    fitted(fed)
    phi = features_of(fed.student, POOLED.x).double()
    counts = torch.bincount(POOLED.y, minlength=CLASSES)
    means = torch.stack([phi[POOLED.y == c].mean(dim=0) for c in range(CLASSES)])
    within = (phi - means[POOLED.y]).T @ (phi - means[POOLED.y])
    penalty = 1e-3 * float(F.pad(phi, (0, 1), value=0.3).square().sum()) / 17
    covariance = (within + penalty * torch.eye(16).double()) / 70
    x = features_of(fed.student, fed.test.x).double()
    scores = torch.stack([
        torch.distributions.MultivariateNormal(means[c], covariance).log_prob(x)
        + (counts[c] / 70).log()
        for c in range(CLASSES)
    ], dim=1)  # fmt: skip
    with torch.no_grad():
        found = fed.student.eval()(fed.test.x).double()
    torch.testing.assert_close(
        found.log_softmax(dim=1), scores.log_softmax(dim=1), rtol=1e-3, atol=1e-3
    )
    assert fed.accuracy() > 0.9
    plain, named = built(), built(head="ridge")
    assert plain.setting.experiment.to_json() == named.setting.experiment.to_json()
    assert "head" not in plain.setting.experiment.to_json()


def test_of_a_model_with_a_basis_all_take_the_server_s() -> None:
    fed = built()
    turned = {"name": "contrast-filters", "sides": [3], "filters": [4], "pool": 2,
              "components": 9, "shapes": 200}  # fmt: skip
    changed = config.Student(model=config.ModelSpec.model_validate(turned))
    experiment = fed.setting.experiment.model_copy(update={"student": changed})
    fed.setting = replace(fed.setting, experiment=experiment, _specs={})
    fed.student = fed.setting.build(changed.model, purpose="student")
    with torch.no_grad():
        fed.student.get_buffer("basis.channels").mul_(-1)  # as another machine may have found it
    fitted(fed)
    with torch.no_grad():
        answers = fed.student.eval()(fed.test.x).double()
    torch.testing.assert_close(answers, closed_form(fed, POOLED), rtol=1e-4, atol=1e-4)


def frozen(tmp_path: Path, name: str) -> dict[str, Any]:
    """A network of another library with weights from a file or a folder, as a student's model."""
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    if name == "torchvision":
        spec = {"name": "torchvision/resnet18"}
        model = models.build(
            config.ModelSpec.model_validate(spec),
            shape=IMAGES,
            classes=CLASSES,
            generator=torch.Generator().manual_seed(3),
        )
        save_file(model.state_dict(), tmp_path / "resnet18.safetensors")
        return {**spec, "weights": {"file": str(tmp_path / "resnet18.safetensors"), "head": "new"}}
    library = optional.load("transformers", extra="text")
    library.utils.logging.disable_progress_bar()
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    given = {"image_size": IMAGES[1], "patch_size": 4, "num_channels": IMAGES[0]}
    seen = library.ViTConfig(intermediate_size=16, num_labels=CLASSES, **given, **size)
    torch.manual_seed(1)
    library.ViTForImageClassification(seen).save_pretrained(tmp_path)
    return {"name": f"hf/{tmp_path}"}


@pytest.mark.parametrize("name", ["torchvision", "transformers"])
def test_a_frozen_network_s_features_give_one_student_for_any_partition(
    name: str, tmp_path: Path
) -> None:
    changed = config.Student(model=config.ModelSpec.model_validate(frozen(tmp_path, name)))
    students = []
    for owner in (torch.zeros(70).long(), POOLED.y):
        fed = built(owner)
        experiment = fed.setting.experiment.model_copy(update={"student": changed})
        fed.setting = replace(fed.setting, experiment=experiment, _specs={})
        fed.student = fed.setting.build(changed.model, purpose="student")
        fed.method.check(fed.setting)
        fed.round(1, fed.begin())
        with torch.no_grad():
            students.append(call.answer(fed.student.eval(), fed.test.x).double())
    torch.testing.assert_close(*students, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(students[0], closed_form(fed, POOLED), rtol=1e-3, atol=1e-3)


def test_a_client_without_records_adds_nothing_to_correlations() -> None:
    nothing = moments(torch.zeros(0, 4), torch.zeros(0).long(), CLASSES)
    assert not any(each.any() for each in restored(correlated(nothing), 0.3))
