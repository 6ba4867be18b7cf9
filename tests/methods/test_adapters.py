"""A frozen trunk stays at home: a federation sends what trains alone."""

import importlib.util
import json

import pytest
import torch
from safetensors.torch import load_file

from fedkd import optional
from fedkd.config import Experiment, validate
from fedkd.jobs.simulate import simulate

WIDTH = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if importlib.util.find_spec("transformers") is None or not importlib.util.find_spec("peft"):
        pytest.skip("transformers or peft is not installed")
    library = optional.load("transformers", extra="text")
    library.utils.logging.disable_progress_bar()
    place = tmp_path_factory.mktemp("adapters")
    rows = [f"{'good' if n % 2 else 'bad'} food {n},{n % 2}" for n in range(60)]
    (place / "texts.csv").write_text("\n".join(["text,label", *rows]))
    (place / "public.csv").write_text("\n".join(["text,label", *rows]))
    size = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2}
    size |= {"intermediate_size": 16, "max_position_embeddings": 16, "vocab_size": 300}
    torch.manual_seed(1)
    library.BertModel(library.BertConfig(**size)).save_pretrained(place / "bert")
    return place


def experiment(place, method, train):
    bert = str(place / "bert")
    model = {"name": f"hf/{bert}", "train": train, "rank": 2, "pooling": "mean"}
    model["weights"] = {"file": bert, "head": "new"}
    text = {"texts": str(place / "public.csv"), "vocabulary": 300, "length": 12}
    training = {"epochs": 1, "batch_size": 8, "optimiser": "adam", "learning_rate": 0.01}
    table = {
        "name": "adapters",
        "rounds": 2,
        "data": {"name": str(place / "texts.csv"), "text": text, "public": {"size": 10}},
        "clients": {"count": 2, "models": [model], "training": training},
        "student": {"model": model},
        "method": method,
    }
    table["data"]["partition"] = {"scheme": "iid"}
    return validate(Experiment, table)


@pytest.mark.parametrize(
    ("method", "train"),
    [
        ("fedavg", "lora"),
        ("fedprox", "head"),
        ("feddf", "lora"),
        ("fedkd", "head"),
    ],
)
def test_what_does_not_train_is_in_no_message(folder, tmp_path, method, train):
    own = {"name": method}
    if method == "feddf":
        own["student"] = {"epochs": 1, "batch_size": 8, "learning_rate": 0.01}
    simulate(experiment(folder, own, train), tmp_path / "run")
    trunk = load_file(folder / "bert" / "model.safetensors")
    student = load_file(tmp_path / "run" / "student.safetensors")
    frozen = {key.replace(".base_layer.", "."): value for key, value in student.items()}
    same = [key for key in trunk if key in frozen and torch.equal(trunk[key], frozen[key])]
    assert set(same) == {key for key in trunk if "pooler" not in key}
    lines = (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()
    least = sum(value.nbytes for value in trunk.values()) / 4  # and two clients send
    assert all(max(json.loads(line)["bytes"].values()) < least for line in lines)
