"""Models of other libraries, by name and by import path."""

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fedkd import models, optional, tasks
from fedkd.config import ModelSpec, TaskChoice
from fedkd.errors import ConfigError
from fedkd.models import call
from fedkd.models.weights import identified

CLASSES = 3


def needs(library: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(library) is None
    return pytest.mark.skipif(missing, reason=f"{library} is not installed")


def build(
    name: str, shape: tuple[int, ...], *, classes: int = CLASSES, seed: int = 0, **options: Any
) -> nn.Module:
    spec = ModelSpec.model_validate({"name": name, **options})
    draws = torch.Generator().manual_seed(seed)
    return models.build(spec, shape=shape, classes=classes, generator=draws)


@needs("torchvision")
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("torchvision/resnet18", (1, 28, 28)),
        ("torchvision/squeezenet1_1", (5, 32, 32)),
        ("torchvision/mobilenet_v3_small", (3, 16, 16)),
    ],
)
def test_a_model_of_torchvision_fits_the_data(name: str, shape: tuple[int, ...]) -> None:
    model = build(name, shape)
    first = next(each for each in model.modules() if isinstance(each, nn.Conv2d))
    assert first.in_channels == shape[0]
    assert models.head(model).weight.shape[0] == CLASSES
    assert call.answer(model.train(), torch.rand(2, *shape)).shape == (2, CLASSES)


@needs("torchvision")
def test_the_same_weights_say_the_same_by_name_and_by_import_path(tmp_path: Path) -> None:
    file, x = tmp_path / "resnet18.safetensors", torch.rand(4, 3, 32, 32)
    teacher = build("torchvision/resnet18", x.shape[1:], seed=5).train()
    call.answer(teacher, x)  # fills BatchNorm's statistics
    save_file(teacher.state_dict(), file)
    wanted = call.answer(teacher.eval(), x)
    for name in ("torchvision/resnet18", "torchvision.models:resnet18"):
        model = build(name, x.shape[1:], weights=str(file)).eval()
        assert torch.equal(call.answer(model, x), wanted)
    with pytest.raises(ConfigError, match=r"'conv1\.weight' is \(64, 3, 7, 7\), and \(64, 1, 7, 7"):
        build("torchvision/resnet18", (1, 32, 32), weights=str(file))
    with pytest.raises(ConfigError, match="nothing is downloaded"):
        build("torchvision.models:resnet18", (3, 32, 32), weights="DEFAULT")


@needs("timm")
@pytest.mark.parametrize(
    ("name", "shape"), [("timm/resnet10t", (1, 28, 28)), ("timm/test_vit", (2, 32, 32))]
)
def test_a_model_of_timm_fits_the_data(name: str, shape: tuple[int, ...]) -> None:
    model = build(name, shape)
    assert call.answer(model, torch.rand(2, *shape)).shape == (2, CLASSES)
    assert models.head(model) is model.get_classifier()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("library", "name", "options", "message"),
    [
        ("torchvision", "torchvision/resnet81", {}, "did you mean 'torchvision/resnet18'? valid"),
        ("timm", "timm/resnt18", {}, "did you mean 'timm/resnet18'? valid here: any of timm.list"),
        ("timm", "timm/resnet18", {"pretrained": True}, "multiple values for keyword argument"),
        ("timm", "timm/resnet18", {"checkpoint_path": "x"}, "multiple values for keyword"),
        (
            "torchvision",
            "torchvision/resnet18",
            {"depth": 3},
            "unexpected keyword argument 'depth'",
        ),
        ("torchvision", "torchvision/alexnet", {}, "cannot take inputs of shape (3, 16, 16)"),
        ("torch", "torchvison/resnet18", {}, "did you mean 'torchvision/resnet18'? valid here: "),
        ("transformers", "hf/no-such", {}, "expected a folder with a config.json"),
    ],
)
def test_what_a_hub_does_not_have_is_refused(
    library: str, name: str, options: dict[str, Any], message: str
) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        build(name, (3, 16, 16), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("library", "name", "extra"),
    [
        ("torchvision", "torchvision/resnet18", "vision"),
        ("torchvision", "torchvision.models:resnet18", "vision"),
        ("timm", "timm/resnet18", "vision"),
        ("transformers", "hf/HERE", "text"),
    ],
)
def test_a_missing_library_is_one_line_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: str, name: str, extra: str
) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
    with pytest.raises(ConfigError) as caught:
        build(name.replace("HERE", str(tmp_path)), (3, 16, 16))
    wanted = f"library {library!r} is not installed: pip install 'fedkd[{extra}]'"
    assert str(caught.value) == wanted


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models as save_pretrained writes them: of images, of sequences, and of masked words."""
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    library = optional.load("transformers", extra="text")
    library.utils.logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("hf")
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    size |= {"intermediate_size": 16, "num_labels": CLASSES}
    seen = library.ViTConfig(image_size=8, patch_size=4, num_channels=1, **size)
    read = library.RobertaConfig(vocab_size=30, max_position_embeddings=14, **size)
    torch.manual_seed(1)
    library.ViTForImageClassification(seen).save_pretrained(folder / "vit")
    library.RobertaForSequenceClassification(read).save_pretrained(folder / "roberta")
    library.RobertaForMaskedLM(read).save_pretrained(folder / "words")
    return folder


def reference(folder: Path, kind: str) -> nn.Module:
    library = optional.load("transformers", extra="text")
    found: nn.Module = getattr(library, kind).from_pretrained(folder, local_files_only=True)
    return found.eval()


def test_a_folder_of_images_says_what_the_library_says(folders: Path) -> None:
    model, x = build(f"hf/{folders / 'vit'}", (1, 8, 8)).eval(), torch.rand(4, 1, 8, 8)
    theirs = reference(folders / "vit", "ViTForImageClassification")
    assert torch.equal(call.answer(model, x), theirs(x).logits)
    assert models.head(model) is model.get_submodule("classifier")


def test_a_folder_of_sequences_takes_rows_of_token_numbers(folders: Path) -> None:
    model = build(f"hf/{folders / 'roberta'}", (10,)).eval()
    theirs = reference(folders / "roberta", "RobertaForSequenceClassification")
    tokens = torch.randint(3, 30, (4, 10), generator=torch.Generator().manual_seed(0))
    tokens[:, 6:] = 1  # padding
    wanted = theirs(tokens[:, :6]).logits  # which is not looked at
    torch.testing.assert_close(call.answer(model, tokens.float()), wanted, rtol=1e-4, atol=1e-5)


def test_a_folder_of_another_task_gives_all_but_the_head(folders: Path) -> None:
    name, file = f"hf/{folders / 'words'}", str(folders / "words")
    with pytest.raises(ConfigError, match=r"'classifier\.dense\.weight' is missing"):
        build(name, (10,), classes=5)
    model = build(name, (10,), classes=5, weights={"file": file, "head": "new"})
    theirs = reference(folders / "words", "RobertaForMaskedLM").state_dict()
    mine = {k: v for k, v in model.state_dict().items() if not k.startswith("classifier.")}
    assert mine
    assert all(torch.equal(value, theirs[key]) for key, value in mine.items())
    fresh = build(name, (10,), classes=5, weights="random")
    assert not torch.equal(
        fresh.get_parameter("roberta.embeddings.word_embeddings.weight"),
        model.get_parameter("roberta.embeddings.word_embeddings.weight"),
    )
    assert torch.equal(models.head(fresh).weight, models.head(model).weight)


def test_a_folder_is_known_by_its_weights_and_its_config(folders: Path) -> None:
    spec = ModelSpec(name=f"hf/{folders / 'vit'}")
    known = identified(spec)
    assert known.weights is not None
    assert known.weights.file == str(folders / "vit")
    assert str(known) == f"hf/vit(weights=vit {known.weights.sha256[:8]})"  # type: ignore[index]
    config = folders / "vit" / "config.json"
    content = config.read_text()
    config.write_text(content + " ")
    assert identified(spec) != known
    config.write_text(content)
    assert identified(spec) == known


def test_code_in_a_folder_is_not_run_and_nobody_is_asked_to(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    shutil.copytree(folders / "vit", folder := tmp_path / "vit")
    config, ran = folder / "config.json", tmp_path / "ran"
    said = json.loads(config.read_text()) | {"model_type": "clip_text_model"}
    said |= {"auto_map": {"AutoModelForImageClassification": "code.Model"}}
    config.write_text(json.dumps(said))
    (folder / "code.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Model: ...\n")
    with pytest.raises(ConfigError, match="trust_remote_code=True"):
        build(f"hf/{folder}", (1, 8, 8), weights="random")
    assert not ran.exists()


@pytest.mark.parametrize("option", ["trust_remote_code", "attn_implementation", "num_labels"])
def test_an_option_of_a_folder_is_a_key_of_its_config_and_nothing_else(
    folders: Path, option: str
) -> None:
    name = f"hf/{folders / 'vit'}"
    wider = build(name, (1, 8, 8), intermediate_size=20, weights="random").state_dict()
    assert wider["vit.layers.0.mlp.fc1.weight"].shape == (20, 8)
    with pytest.raises(ConfigError, match=f"unknown option of 'hf/vit' '{option}'"):
        build(name, (1, 8, 8), **{option: 2})


def test_a_folder_of_images_refuses_rows(folders: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot take inputs of shape \(10,\): expected images"):
        build(f"hf/{folders / 'vit'}", (10,))


@needs("torchvision")
def test_a_segmentation_model_of_torchvision_answers_classes_last() -> None:
    choice = TaskChoice(name="segmentation")
    task = tasks.build(choice, inputs=(1, 32, 40), names=("ground", "spot"))
    spec = ModelSpec(name="torchvision/lraspp_mobilenet_v3_large")
    model = models.build(
        spec, shape=(1, 32, 40), classes=2, generator=torch.Generator().manual_seed(0), task=task
    )
    x = torch.rand(3, 1, 32, 40)
    model.eval()
    with torch.no_grad():
        said, wrapped = call.answer(model, x), model.__class__.forward(model, x)
    assert said.shape == (3, 32, 40, 2)
    assert torch.equal(said[..., 1], wrapped["out"][:, 1])
