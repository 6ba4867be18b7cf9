"""Methods beside each other, attacked and under privacy: `fedkd compare --audit`."""

import json
from contextlib import nullcontext

import pytest
import tiny

from fedkd.errors import ConfigError
from fedkd.jobs.audit import members, messages
from fedkd.jobs.compare import compare, plan
from fedkd.reports.comparison import comparison_table, differences
from fedkd.reports.report import write_comparison
from fedkd.runs.reading import read

OVERFITTED = {
    "rounds": 1,
    "clients.count": 2,
    "clients.models": [{"name": "mlp", "hidden": [64]}],
    "clients.training": {"epochs": 20, "batch_size": 16, "learning_rate": 0.02},
    "clients.test_share": 0.2,
    "student.model": {"name": "mlp", "hidden": [64]},
}


def watch(run):
    return nullcontext(tiny.Quiet())


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """Rows whose classes overlap, so that a model has something to learn by heart."""
    path = tmp_path_factory.mktemp("data") / "noisy.npz"
    return tiny.write_rows(path, samples=400, features=60, spread=6.0)


@pytest.fixture(scope="module")
def compared(noisy, tmp_path_factory):
    """A comparison that was attacked, and how many reference models were trained for it."""
    folder = tmp_path_factory.mktemp("compared") / "both"
    runs = plan(tiny.experiment(noisy, OVERFITTED), ["local", "fedkd"], 1)
    with pytest.MonkeyPatch.context() as patch:
        trained, fit = [], messages.fit
        patch.setattr(messages, "fit", lambda *given: trained.append(given) or fit(*given))
        done = compare(runs, folder, watch, audit=True)
    return done, len(trained)


def test_each_run_is_attacked_and_keeps_its_own_figures(compared, noisy, tmp_path):
    done, _ = compared
    assert done.failed == {}
    local, other = sorted(comparison_table(done.folders), key=lambda row: row.method)[::-1]
    assert local.members_sent.mean > 0.6  # 0.74 here: clients send models learned by heart
    assert 0 <= other.members_student.mean <= 1
    assert other.members_sent is None  # no attack reads factors of an update
    assert (local.own is None, local.epsilon) == (False, None)
    page = write_comparison(done.folders, tmp_path / "page.html").read_text("utf-8")
    assert "LiRA, sent" in page
    alone = compare(plan(tiny.experiment(noisy, OVERFITTED), ["local"], 1), tmp_path / "a", watch)
    assert tiny.student_hash(alone.folders[0]) == tiny.student_hash(done.folders[0])


def test_methods_share_reference_models(compared):
    _, trained = compared
    # Four of each client for `local`, and four of the student for both. What `fedkd`'s clients send
    # is not read.
    assert trained == 2 * 4 + 4


def test_what_is_attacked_already_is_left_and_a_recording_cut_off_is_made_anew(
    compared, monkeypatch
):
    done, _ = compared
    kept = (done.folders[0] / "members.json").read_bytes()
    (done.folders[0] / "members.json").write_text(json.dumps({"sent": 0.5, "student": 0.25}))
    cut, exposure = done.folder / "fedkd-seed7-audit", "audit/exposure.json"
    (done.folders[1] / "members.json").unlink()
    (cut / exposure).unlink()
    runs = done.runs
    monkeypatch.setattr(members, "REFERENCES", 2)
    again = compare(runs, done.folder, watch, resume=True, audit=True)
    assert again.failed == {}
    assert read(done.folders[0]).members.student == 0.25
    assert read(done.folders[1]).members.sent is None
    assert (cut / exposure).is_file()
    (done.folders[0] / "members.json").write_bytes(kept)


def test_an_audit_without_power_is_a_run_that_failed(noisy, tmp_path):
    few = tiny.experiment(noisy, {**OVERFITTED, "clients.count": 10})
    done = compare(plan(few, ["local"], 1), tmp_path / "few", watch, audit=True)
    assert "its audit: NO POWER: client 0 holds" in done.failed["local-seed7"]


def test_a_method_may_be_under_privacy(compared, noisy, tmp_path):
    runs = plan(
        tiny.experiment(noisy, OVERFITTED), ["local", "local+epsilon=8+sample_rate=0.25"], 1
    )
    assert [run.config.privacy.epsilon for run in runs] == [None, 8.0]
    assert runs[1].config.privacy.unit == "record"
    [private] = compare(runs[1:], tmp_path / "private", watch).folders
    assert private.name == "local+epsilon=8+sample_rate=0.25-seed7"
    both = [compared[0].folders[0], private]
    rows = {row.method: row.epsilon for row in comparison_table(both)}
    assert rows["local"] is None
    assert 7.5 < rows["local, epsilon 8"] <= 8
    assert differences([read(path) for path in both]) == []  # it is what is compared
    one = read(private)
    stricter = one.experiment.privacy.model_copy(update={"delta": 1e-7})
    other = one.model_copy(
        update={"experiment": one.experiment.model_copy(update={"privacy": stricter})}
    )
    assert differences([one, other]) == ["privacy.delta"]


@pytest.mark.parametrize(
    ("word", "said"),
    [("fedmd+epsilom=8", "privacy.epsilom"), ("fedmd+epsilon", "expected key.path=value")],
)
def test_a_word_that_is_no_privacy_is_refused(noisy, word, said):
    with pytest.raises(ConfigError, match=said):
        plan(tiny.experiment(noisy), [word], 1)


def test_keys_of_privacy_leave_the_others_and_the_folder_as_they_are(noisy, tmp_path):
    own = {
        "privacy.epsilon": 3,
        "privacy.delta": 1e-6,
        "privacy.ledger": str(tmp_path / "ledger"),
        "privacy.most_records": 900_000,
        "privacy.sample_rate": 0.25,
    }
    experiment = tiny.experiment(noisy, {**OVERFITTED, **own})
    elsewhere = "local+ledger=../../elsewhere"
    runs = plan(experiment, ["local", "local+epsilon=8", elsewhere], 1)
    wanted = {"delta": 1e-6, "most_records": 900_000}
    assert all(run.config.privacy.model_dump().items() >= wanted.items() for run in runs)
    assert [run.config.privacy.epsilon for run in runs] == [3, 8, 3]
    assert runs[1].config.privacy.ledger == experiment.privacy.ledger
    assert [run.name for run in runs[:2]] == ["local-seed7", "local+epsilon=8-seed7"]
    assert "/" not in runs[2].name
