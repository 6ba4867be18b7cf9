"""`engine.precision`: models compute in half the bits, and all that is kept stays float32."""

import pytest
import tiny
import torch
from safetensors.torch import load_file
from torch import nn

from fedkd import config, devices
from fedkd.errors import ConfigError
from fedkd.federation.prepare import prepare
from fedkd.jobs.simulate import simulate
from fedkd.models import call
from fedkd.models.layers import forward_with

LOW = {"engine.precision": "bfloat16"}


def test_a_model_answers_in_float32_what_it_computed_in_half_the_bits():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4)), torch.rand(8, 64)
    exact = call.answer(model, x)
    with devices.computing("bfloat16"):
        answer = call.answer(model, x)
        inside = forward_with(model, x, ["0"])["0"]
        answer.sum().backward()
    assert {answer.dtype, inside.dtype, model[0].weight.grad.dtype} == {torch.float32}
    assert torch.equal(answer, answer.bfloat16().float())  # no more bits than that
    assert 0 < (answer - exact).abs().max() < 0.05
    assert torch.equal(call.answer(model, x), exact)  # it ended with the context


def test_an_optimisers_steps_and_a_runs_student_are_float32(rows, tmp_path):
    for name, changes in (("exact", {}), ("low", LOW)):
        simulate(tiny.experiment(rows, changes), tmp_path / name, tiny.Quiet())
    exact, low = (load_file(tmp_path / name / "student.safetensors") for name in ("exact", "low"))
    assert {tensor.dtype for tensor in low.values()} == {torch.float32}
    gaps = [float((low[name] - exact[name]).abs().max()) for name in exact]
    assert 0 < max(gaps) < 0.1


@pytest.mark.parametrize("threads", [1, 2])
def test_teachers_in_other_threads_compute_as_whoever_asks(threads):
    from fedkd.learning.ensemble import Ensemble

    torch.manual_seed(0)
    teachers, x = [nn.Linear(16, 3) for _ in range(2)], torch.rand(5, 16)
    with Ensemble(teachers, threads=threads) as ensemble:
        exact = ensemble.logits(x)
        with devices.computing("bfloat16"):
            low = ensemble.logits(x)
    assert torch.equal(low, low.bfloat16().float())
    assert not torch.equal(low, exact)


def test_what_is_not_exact_cannot_be_protected(rows):
    changes = {**LOW, "privacy.epsilon": 8.0, "privacy.most_records": 1000}
    with pytest.raises(ConfigError, match=r"engine.precision is 'bfloat16'.*write 'float32'"):
        prepare(tiny.experiment(rows, changes))


def test_the_default_says_nothing_of_it(rows):
    assert "precision" not in tiny.experiment(rows).to_json()
    assert config.parse_json(tiny.experiment(rows, LOW).to_json()).engine.precision == "bfloat16"
