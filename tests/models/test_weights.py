"""Initial weights: which they are, and what does not fit."""

import re
from collections import OrderedDict
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fedkd import models
from fedkd.config import ModelSpec
from fedkd.errors import ConfigError
from fedkd.models.weights import identified, random

SHAPE, CLASSES = (1, 8, 8), 3


def spec(weights: Any, name: str = "dense-cnn") -> ModelSpec:
    return ModelSpec.model_validate({"name": name, "weights": weights})


def build(weights: Any = "random", *, classes: int = CLASSES, seed: int = 0) -> nn.Module:
    draws = torch.Generator().manual_seed(seed)
    return models.build(spec(weights), shape=SHAPE, classes=classes, generator=draws)


@pytest.fixture
def given() -> OrderedDict[str, Tensor]:
    """Weights of a model that has learned, BatchNorm statistics too."""
    state = OrderedDict(build(seed=9).state_dict())
    state["norm1.running_mean"] = torch.linspace(-1, 1, 16)
    return state


@pytest.fixture
def file(tmp_path: Path, given: OrderedDict[str, Tensor]) -> Path:
    save_file(given, tmp_path / "learned.safetensors")
    return tmp_path / "learned.safetensors"


def test_a_model_starts_from_its_weights_statistics_included(
    file: Path, given: dict[str, Tensor]
) -> None:
    model = build(str(file))
    assert model.training
    assert {name: value.tolist() for name, value in model.state_dict().items()} == {
        name: value.tolist() for name, value in given.items()
    }


def test_a_run_folder_and_a_folder_of_several_files_are_weights_too(
    tmp_path: Path, given: dict[str, Tensor]
) -> None:
    for name, parts in {"run": ["student"], "hub": ["model-1", "model-2"]}.items():
        (tmp_path / name).mkdir()
        keys = sorted(given)
        for n, part in enumerate(parts):
            share = {key: given[key] for key in keys[n :: len(parts)]}
            save_file(share, tmp_path / name / f"{part}.safetensors")
        found = build(str(tmp_path / name)).state_dict()
        assert all(torch.equal(found[key], given[key]) for key in given)
    before = identified(spec(str(tmp_path / "hub"))).weights
    save_file({"more": torch.zeros(1)}, tmp_path / "hub" / "model-3.safetensors")
    assert before != identified(spec(str(tmp_path / "hub"))).weights


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv2.weight": torch.zeros(32, 16, 3, 3)}, "'conv2.weight' is (32, 16, 3, 3), and "
         "(32, 16, 5, 5) in the model"),
        ({"conv1.bias": None, "conv2.bias": None}, "'conv1.bias' is missing, which is (16,) in"),
        ({"more.weight": torch.zeros(2, 3)}, "'more.weight', (2, 3), is nothing in the model"),
        ({"norm1.running_var": None}, "'norm1.running_var' is missing"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused_by_the_first_name_that_differs(
    file: Path, given: dict[str, Tensor], change: dict[str, Tensor | None], message: str
) -> None:
    changed = {**given, **change}
    save_file({name: value for name, value in changed.items() if value is not None}, file)
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        build(str(file))
    said = str(caught.value)
    assert said.startswith(f"weights {str(file)!r} do not fit model 'dense-cnn': ")
    assert "\n" not in said
    assert "head" not in said


def test_batches_that_nobody_counted_are_no_misfit(file: Path, given: dict[str, Tensor]) -> None:
    save_file({k: v for k, v in given.items() if not k.endswith("num_batches_tracked")}, file)
    assert torch.equal(build(str(file)).get_buffer("norm1.num_batches_tracked"), torch.tensor(0))


def test_another_number_of_classes_needs_a_new_head(file: Path, given: dict[str, Tensor]) -> None:
    with pytest.raises(ConfigError, match=r"head = 'new' } lets start fresh$"):
        build(str(file), classes=5)
    model = build({"file": str(file), "head": "new"}, classes=5)
    fresh = build(classes=5)
    for name, value in model.state_dict().items():
        wanted = fresh.state_dict() if name.startswith("classifier.") else given
        assert torch.equal(value, wanted[name]), name


def test_other_weights_than_were_agreed_on_are_refused(
    file: Path, given: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    known = identified(spec(file.name))
    assert known.weights is not None
    assert known.weights.file == str(file)
    assert known.weights.sha256 == sha256(file.read_bytes()).hexdigest()
    assert identified(known) == known
    save_file({**given, "conv1.bias": torch.ones(16)}, file)
    for refuse in (lambda: identified(known), lambda: build(known.weights)):
        with pytest.raises(ConfigError, match="all parties need the same initial weights"):
            refuse()
    assert build(random(known).weights).training  # nothing is read


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02", "a file of torch.save, which can run code when it is read"),
        (b"{}", "no safetensors file"),
        (None, "No such file or directory; expected a .safetensors file"),
    ],
)
def test_what_is_no_safetensors_file_is_not_opened(
    file: Path, content: bytes | None, message: str
) -> None:
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(message)):
        build(str(file))
    (file.parent / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"the folder has no \.safetensors file"):
        identified(spec(str(file.parent / "empty")))
