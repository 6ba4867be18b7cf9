"""FedMD whose clients weigh as much as their records are like the proxy set."""

from dataclasses import replace

import pytest
import torch
from federations import IMAGES, STILL, Federation, federation, protected, samples, tensors
from torch import Tensor

from fedkd import tasks
from fedkd.config import TaskChoice
from fedkd.data.types import Samples
from fedkd.errors import ConfigError
from fedkd.exchange.messages import Broadcast, Release
from fedkd.privacy.events import Unprotected

FAMILIAR = {"name": "fedmd", "familiar": True}


def strange(size: int, shape: tuple[int, ...], seed: int) -> Samples:
    """As `samples`, but for client 1, whose records are of another place."""
    found = samples(size, shape, seed)
    return Samples(found.x + 3.0, found.y) if seed == 1 else found


def answered(fed: Federation, familiarity: list[float]) -> dict[int, dict[str, Tensor]]:
    """Uploads of clients who answer their own number everywhere."""
    shape = fed.method.expects(fed.setting, 0)["logits"].shape
    return {
        client: {
            "logits": torch.full(shape, float(client), dtype=torch.float16),
            "familiarity": torch.tensor(each, dtype=torch.float64),
        }
        for client, each in enumerate(familiarity)
    }


def consensus(fed: Federation, uploads: dict[int, dict[str, Tensor]]) -> float:
    returned = fed.method.server(fed.server_context(), uploads)
    return float(returned.common["consensus"].float().mean())


@pytest.mark.parametrize("shape", [(5,), IMAGES])
def test_who_learned_elsewhere_says_so_and_weighs_less(shape: tuple[int, ...]) -> None:
    sizes = (24, 24, 24)
    fed = federation(FAMILIAR, shape, sizes, draw=strange if len(shape) == 1 else samples)
    if len(shape) == 3:  # another texture, as brightness is no feature
        fed.data[1] = replace(fed.data[1], x=torch.rand(24, *shape))
    uploads = {c: fed.wire(c, fed.ask(c, 1, Broadcast())) for c in range(3)}
    near, far, other = (float(each["familiarity"]) for each in uploads.values())
    assert far < min(near, other) / 2
    assert max(near, other) <= 1


def test_the_consensus_is_the_mean_by_what_clients_say_within_the_bound_of_all_weights() -> None:
    fed = federation(FAMILIAR, training=STILL)
    assert consensus(fed, answered(fed, [0.3, 0.3, 0.3])) == pytest.approx(1.0, abs=1e-3)
    assert consensus(fed, answered(fed, [0.2, 0.5, 0.3])) == pytest.approx(1.1, abs=1e-3)
    # Of three nobody weighs more than two thirds, whatever it says.
    liar = answered(fed, [0.001, 0.001, 1.0])
    assert consensus(fed, liar) == pytest.approx((0 + 1 / 6 + 2 * 2 / 3), abs=1e-3)
    trusting = federation(FAMILIAR, training=STILL, max_weight=1.0)
    assert consensus(trusting, liar) == pytest.approx(2.0, abs=5e-3)


def test_what_leaves_is_one_number_that_is_called_a_release_of_private_data() -> None:
    fed = federation(FAMILIAR)
    upload = fed.ask(0, 1, Broadcast())
    value = upload.values["familiarity"]
    assert value.data.shape == ()
    assert value.provenance == Release(Unprotected("familiarity with the proxy set"))
    assert fed.method.expects(fed.setting, 0)["familiarity"].low > 0
    assert "familiarity" not in federation("fedmd").method.expects(fed.setting, 0)


def test_it_does_not_change_from_round_to_round() -> None:
    fed = federation(FAMILIAR)
    uploads = [fed.ask(0, round, Broadcast()) for round in (1, 2)]
    first, second = (tensors(each) for each in uploads)
    assert torch.equal(first["familiarity"], second["familiarity"])
    assert not torch.equal(first["logits"], second["logits"])


def test_an_experiment_that_does_not_name_it_keeps_its_json() -> None:
    assert "familiar" not in federation("fedmd").setting.experiment.to_json()


def refused(fed: Federation, **changes: object) -> str:
    with pytest.raises(ConfigError) as caught:
        fed.method.check(replace(fed.setting, **changes))  # type: ignore[arg-type]
    return str(caught.value)


def test_it_is_refused_where_noise_would_have_to_cover_it_or_answers_have_no_mean() -> None:
    fed = federation({**FAMILIAR, "loss": "divergence"})
    fed.method.check(fed.setting)
    assert "no noise of privacy.unit = 'record' covers" in refused(
        fed, experiment=protected(fed.setting).experiment
    )
    choice = TaskChoice(name="embedding")
    faces = tasks.build(choice, inputs=(5,), names=["0", "1", "2"])
    assert "task 'embedding' come together in another way" in refused(fed, task=faces)
    words = tasks.build(TaskChoice(), inputs=(5, 2), names=["0", "1", "2"])
    assert "compares rows of numbers or images, and client 0" in refused(fed, task=words)
