"""A run in which all forms that came after the survey are passed on at once."""

import pytest
from small import ignore, small

from fedkd.config import load_distillation
from fedkd.jobs.distil import distil

ANSWERS = ["logit-standardisation", "mlkd", "ctkd", "wkd-l"]
MODELS = {
    "teachers": [
        {"model": "dense-cnn", "training": {"epochs": 1, "batch_size": 50, "learning_rate": 0.02}}
    ],
    "student": {
        "model": {"name": "resnet8", "width": 2, "norm": "group"},
        "training": {"epochs": 1, "batch_size": 50, "learning_rate": 0.005},
    },
}
OF_LAYERS = [
    {"name": "ofa", "student": ["stage1", "stage2"]},
    {"name": "crd"},
    {"name": "wkd-f"},
    {"name": "reviewkd", "student": ["stage1", "flatten"], "teacher": ["pool1", "flatten"]},
]


@pytest.fixture(scope="module")
def run(squares, tmp_path_factory):
    folder = tmp_path_factory.mktemp("newer") / "run"
    knowledge = [*({"name": name} for name in ANSWERS), *OF_LAYERS]
    told = small(
        squares, **MODELS, plain=False, knowledge=[{**k, "weight": 0.01} for k in knowledge]
    )
    return folder, distil(told, folder, ignore)


def test_a_student_comes_out_and_the_file_says_all(run):
    folder, summary = run
    assert (folder / "student.safetensors").exists()
    assert summary["student"]
    complete = {each.name: each for each in load_distillation(folder / "config.toml").knowledge}
    assert list(complete) == [*ANSWERS, *(each["name"] for each in OF_LAYERS)]
    assert complete["ctkd"].parameters["epochs"] == 10
    assert (complete["ofa"].student, complete["ofa"].teacher) == (("stage1", "stage2"), ())
    assert complete["wkd-f"].teacher == ("pool2",)
