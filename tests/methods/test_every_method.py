"""What holds for each of the built-in methods."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from federations import CLASSES, IMAGES, SMALL, WIDE, Federation, equal, federation, tensors

from fedkd import config, methods
from fedkd.exchange.gate import release
from fedkd.exchange.messages import PostProcessing, Public, Release
from fedkd.methods import BUILT_IN

OF_ANY_INPUTS = [name for name in BUILT_IN if "text" not in methods.find(name).card.asks]
"""Those for texts alone have a test file each, such as `test_sequence_kd`."""
TINY: dict[str, dict[str, Any]] = {
    "local": {},
    "centralised": {},
    "fedavg": {},
    "fedprox": {"mu": 0.01},
    "scaffold": {},
    "feddyn": {"alpha": 0.1},
    "moon": {},
    "fedmd": {"public_per_round": 20, "student": {"learning_rate": 0.1}},
    "dsfl": {"public_per_round": 20, "student": {"learning_rate": 0.2}},
    "feddf": {"student": {"epochs": 3, "optimiser": "adam", "learning_rate": 0.01}},
    "fedkt": {"teachers": 2, "digest": {"epochs": 2}, "student": {"epochs": 2}},
    "selective-fd": {"ambiguity": 1.0, "student": {"learning_rate": 0.2}},
    "fedmrl": {},
    "dense": {"epochs": 2, "steps": 5, "batch_size": 12, "latent": 8, "width": 4},
    "dafl": {"epochs": 2, "steps": 3, "batch_size": 12, "latent": 8, "width": 4},
    "adi": {"epochs": 2, "steps": 5, "batch_size": 12},
    "co_boosting": {"epochs": 2, "steps": 5, "batch_size": 12, "latent": 8, "width": 4},
    "fedftg": {"iterations": 3, "batch_size": 12, "latent": 8, "width": 4},
    "fedgen": {"steps": 40, "latent": 4, "hidden": 8, "learning_rate": 0.02, "distillation": 1.0},
    "fedlwf": {},
    "fedkd": {"energy_start": 0.9},
    "fedproto": {"student": {"learning_rate": 0.1}},
    "fedgkt": {"layer": "relu1", "records": 16, "back": {"learning_rate": 0.1}},
    "fedpair": {"epochs": 2, "images": 60},
    "fedpair_moments": {
        "epochs": 2,
        "images": 60,
        "features": {"name": "random-filters", "filters": 4, "pool": 2},
    },
    "analytic": {},
    "summed_steps": {"records": 48},
    "fd": {"student": {"learning_rate": 0.1}},
    "fml": {},
    "lg-fedavg": {"student": {"learning_rate": 0.1}},
    "fedgh": {"student": {"learning_rate": 0.1}},
    "fedtgp": {"student": {"learning_rate": 0.1}, "weight": 1.0, "prototypes": {"epochs": 5}},
}
# Methods that average models take one architecture, the others several.
UNLIKE = {"models": [SMALL, WIDE]}
ALIKE = {"models": [SMALL, {"name": "mlp", "hidden": [10, 12]}]}
"""Unlike models whose last features are equally wide."""
EQUALLY_WIDE = ("fedproto", "lg-fedavg", "fedgh", "fedtgp")


def built(name: str, **changes: Any) -> Federation:
    if "stream" in needed(name):  # every stage comes
        changes["rounds"] = max(2, changes.get("rounds", 2))
    averages = not methods.find(name).card.unlike_models
    models = {} if averages else ALIKE if name in EQUALLY_WIDE else UNLIKE
    return federation({"name": name, **TINY[name]}, IMAGES, **models, **needed(name), **changes)


def needed(name: str) -> dict[str, Any]:
    """What the method needs of the data."""
    return {"stream": config.Stream(by="classes", stages=2)} if name == "fedlwf" else {}


def with_model(name: str, model: str) -> Federation:
    """A method whose models, clients' and student's, are of one import path."""
    spec = {"name": f"own_models:{model}", "hidden": [12]}
    method = {"name": name, **TINY[name]}
    own = needed(name)
    return federation(method, IMAGES, models=[spec], student=spec, sizes=(16, 12, 8), **own)


def test_every_built_in_method_is_tried() -> None:
    assert list(TINY) == OF_ANY_INPUTS


@pytest.mark.parametrize("name", OF_ANY_INPUTS)
def test_a_client_sends_exactly_what_is_expected_and_says_why(name: str) -> None:
    fed = built(name, rounds=1)
    broadcast = fed.begin()
    for client in range(3):
        upload = fed.ask(client, 1, broadcast)
        expected = fed.method.expects(fed.setting, client)
        assert set(tensors(upload)) == set(expected)
        for key, tensor in tensors(upload).items():
            assert tensor.dtype == expected[key].dtype
            assert expected[key].fits(list(tensor.shape))
            assert expected[key].fewer_rows or expected[key].shape == tuple(tensor.shape)
        assert set(fed.wire(client, upload)) == set(expected)
        for value in upload.values.values():
            assert isinstance(value.provenance, Public | PostProcessing | Release)
        receipts = release(upload)
        assert sum(r.bytes for r in receipts) == sum(t.nbytes for t in tensors(upload).values())
        assert all("no DP" in receipt.provenance for receipt in receipts)


@pytest.mark.parametrize("name", OF_ANY_INPUTS)
def test_the_student_learns_and_the_same_seed_is_the_same_run_bitwise(name: str) -> None:
    # fedpair's unlike models, which these are, meet once.
    one_shot = methods.find(name).card.one_shot or name == "fedpair"
    rounds = 1 if one_shot else 2
    sizes = (60, 40, 20)
    runs = [built(name, rounds=rounds, sizes=sizes, seed=seed) for seed in (3, 3, 4)]
    for fed in runs:
        before = fed.accuracy()
        broadcast = fed.begin()
        for number in range(1, rounds + 1):
            broadcast, ctx = fed.round(number, broadcast)
        assert all(torch.isfinite(torch.tensor(list(ctx.losses.values()))))
        if not one_shot:  # two epochs of five steps teach nobody
            assert fed.accuracy() > max(before, 1.5 / CLASSES)
    first, again, other = (fed.student.state_dict() for fed in runs)
    assert equal(first, again)
    assert not equal(first, other)


WEIGHING = [name for name in BUILT_IN if methods.find(name).card.counts and name != "local"]
"""Those by whose counts clients weigh; `local` averages nothing."""


@pytest.mark.parametrize("name", WEIGHING)
def test_who_claims_a_billion_examples_weighs_its_share_and_no_more(name: str) -> None:
    students = []
    for claim in (10**4, 10**9 // CLASSES):
        fed = federation({"name": name, **TINY[name]}, IMAGES, (24, 16, 20), **needed(name))
        broadcast = fed.begin()
        uploads = {i: fed.wire(i, fed.ask(i, 1, broadcast)) for i in range(3)}
        counts = {key: value for key, value in uploads[2].items() if key in ("count", "counts")}
        uploads[2] |= {key: torch.full_like(value, claim) for key, value in counts.items()}
        ctx = fed.server_context()
        fed.method.server(ctx, uploads)
        students.append(fed.student.state_dict())
        claimed, weighed = ctx.capped.pop(2)
        assert claimed > 0.99
        assert weighed == pytest.approx(2 / 3)
        assert not ctx.capped
    for key, value in students[0].items():
        torch.testing.assert_close(value, students[1][key])


def test_a_size_is_at_least_one_before_it_is_bounded_and_not_after() -> None:
    ctx = federation({"name": "fedavg"}, IMAGES, (24, 16, 20)).server_context()
    claims = torch.zeros(3, CLASSES, dtype=torch.int64)
    claims[0, 1] = 10**9  # as noise leaves it, all others hold nothing
    sizes = ctx.sizes({client: {"counts": claims[client]} for client in range(3)}, "counts")
    assert sizes.tolist() == pytest.approx([4, 1, 1])
    assert ctx.capped == {0: (pytest.approx(1.0), pytest.approx(2 / 3))}


@pytest.mark.parametrize("name", OF_ANY_INPUTS)
def test_the_same_seed_is_the_same_upload_in_whatever_order_clients_answer(name: str) -> None:
    one, other = built(name), built(name)
    broadcast = one.begin()
    other.begin()
    forwards = [tensors(one.ask(client, 1, broadcast)) for client in (0, 1, 2)]
    backwards = [tensors(other.ask(client, 1, broadcast)) for client in (2, 1, 0)]
    assert all(equal(a, b) for a, b in zip(forwards, reversed(backwards), strict=True))
    if name != "centralised":
        assert not equal(forwards[0], forwards[2])


@pytest.mark.parametrize("name", OF_ANY_INPUTS)
def test_resolved_parameters_are_complete_and_resolving_again_changes_nothing(name: str) -> None:
    method, experiment = methods.resolve(built(name).setting.experiment)
    fields = method.Params.model_fields
    given = set(experiment.method.parameters)
    values = {key: getattr(method.params, key) for key in fields}
    later = {
        key for key, each in fields.items() if each.exclude_if and each.exclude_if(values[key])
    }
    assert given == {key for key, value in values.items() if value is not None} - later
    assert methods.resolve(experiment)[1] == experiment
    assert config.parse_json(experiment.to_json()) == experiment


@pytest.mark.parametrize("name", OF_ANY_INPUTS)
def test_the_test_set_is_for_measuring_alone(name: str) -> None:
    students = []
    for seed in (0, 1):
        fed = built(name)
        labels = torch.randint(
            CLASSES, fed.test.y.shape, generator=torch.Generator().manual_seed(seed)
        )
        fed.test = replace(fed.test, y=labels)
        fed.round(1, fed.begin())
        students.append(fed.student.state_dict())
    assert equal(*students)


@pytest.mark.parametrize("name", OF_ANY_INPUTS)
def test_a_model_that_overwrites_its_inputs_changes_nothing(name: str) -> None:
    """Neither what parties share nor what they learn: the student is that of a careful twin."""
    students = []
    for model in ("mlp", "careful_mlp"):
        fed = with_model(name, model)
        inputs = [fed.setting.proxy, fed.test.x, *(own.x for own in fed.data)]
        before = [each.clone() for each in inputs]
        fed.round(1, fed.begin())
        assert all(torch.equal(*pair) for pair in zip(inputs, before, strict=True))
        students.append(fed.student.state_dict())
    assert equal(*students)
