"""A distillation's folder that was damaged never lies either."""

import json
import shutil

import pytest
import tiny
from damages import DAMAGES
from small import ignore, small

from fedkd.errors import FedkdError, RunFolderError
from fedkd.jobs.distil import distil
from fedkd.reports import distil_report

STAGE = "checkpoints/teacher-0.safetensors"
FILES = {
    STAGE: set(DAMAGES) - {"another client's", "an older one"},
    "checkpoints/stages.json": {"first bit", "middle bit", "last bit", "half", "empty", "junk"}
    | {"another run's", "deleted"},
    "rounds.jsonl": {"first bit", "middle bit", "half", "20 bytes fewer", "empty", "deleted"},
    "inputs.json": {"middle bit", "half", "deleted", "junk"},
    "environment.json": {"middle bit", "half", "deleted", "junk"},
    "config.toml": {"first bit", "half", "deleted", "junk", "another run's"},
}
CASES = [(file, damage) for file, own in FILES.items() for damage in DAMAGES if damage in own]
HARMLESS = {
    # The last line is of a training that was cut off.
    ("rounds.jsonl", "20 bytes fewer"),
}


class KilledError(Exception):
    """The process dies here."""


def as_before(run):
    """What a run folder was before anything was named in it."""
    (run / "checkpoints" / "stages.json").unlink()
    told = json.loads((run / "environment.json").read_text())
    del told["layout"]
    (run / "environment.json").write_text(json.dumps(told))
    return run


class Idle:
    """Whoever watches that no training goes on."""

    def __call__(self, stage, done, total):
        assert done in (0, total), "it trains"


@pytest.fixture(scope="module", autouse=True)
def no_report():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distil_report, "write", lambda folder: None)
        yield


@pytest.fixture(scope="module")
def place(rows, tmp_path_factory):
    """Runs that were killed in their last training, and how one of them must end."""
    place = tmp_path_factory.mktemp("distil")

    def kill(stage, epoch, _total):
        if (stage, epoch) == ("student", 1):
            raise KilledError

    for name, seed in (("killed", 3), ("other", 4)):
        with pytest.raises(KilledError):
            distil(small(rows, seed=seed), place / name, kill)
    shutil.copytree(place / "killed", place / "whole")
    distil(small(rows), place / "whole", ignore, resume=True)
    return place


@pytest.mark.parametrize(("name", "damage"), CASES)
def test_a_damaged_run_ends_in_the_same_student_or_names_the_file(
    rows, place, tmp_path, name, damage
):
    run = tmp_path / "run"
    shutil.copytree(place / "killed", run)
    DAMAGES[damage](run, name, place / "other", place / "killed")
    if (name, damage) in HARMLESS:
        distil(small(rows), run, ignore, resume=True)
        assert tiny.student_hash(run) == tiny.student_hash(place / "whole")
        return
    with pytest.raises(FedkdError) as refused:
        distil(small(rows), run, Idle(), resume=True)
    assert refused.value.exit_status == 2
    assert "\n" not in str(refused.value)
    assert name in str(refused.value)


def test_a_folder_of_an_earlier_fedkd_goes_on_and_says_so(rows, place, tmp_path, caplog):
    run = as_before(shutil.copytree(place / "killed", tmp_path / "run"))
    distil(small(rows), run, ignore, resume=True)
    assert tiny.student_hash(run) == tiny.student_hash(place / "whole")
    assert "an earlier fedkd's" in caplog.text


@pytest.mark.parametrize("name", ["checkpoints/stages.json", "environment.json", "inputs.json"])
def test_before_the_first_stage_is_over_a_lost_file_is_missed_too(rows, tmp_path, name):
    def kill(*_):
        raise KilledError

    run = tmp_path / "run"
    with pytest.raises(KilledError):
        distil(small(rows), run, kill)
    for content in ("{}", "[]", None):
        if content is None:
            (run / name).unlink()
        else:
            (run / name).write_text(content)
        with pytest.raises(RunFolderError, match=name):
            distil(small(rows), run, Idle(), resume=True)
