import numpy as np
import pytest
import tiny

from fedkd.runs.simulate import simulate


def test_scores_by_class_add_up_and_a_class_without_test_samples_has_none(rows, tmp_path):
    arrays = dict(np.load(rows))
    kept = (arrays["y_test"] == 0) | ((arrays["y_test"] == 1) & (np.arange(120) < 30))
    for part in ("x_test", "y_test"):
        arrays[part] = arrays[part][kept]
    np.savez(tmp_path / "few.npz", **arrays)
    simulate(tiny.experiment(tmp_path / "few.npz"), tmp_path / "run", tiny.Quiet())
    for record in tiny.rounds(tmp_path / "run"):
        for score in (record["student"], *record["teachers"]["by_client"].values()):
            first, second, third = score["by_class"]
            assert third is None
            assert score["accuracy"] == pytest.approx((40 * first + 10 * second) / 50)


def test_seconds_add_up(rows, tmp_path):
    simulate(tiny.experiment(rows), tmp_path / "run", tiny.Quiet())
    for record in tiny.rounds(tmp_path / "run"):
        seconds = record["seconds"]
        assert seconds["total"] == pytest.approx(seconds["clients"] + seconds["server"])
        assert {"train", "answer", "evaluate", "server: distil"} <= seconds["phases"].keys()
        assert 0 < seconds["phases"]["server: distil"] < seconds["server"]


def test_a_method_without_teachers_has_none_in_its_record(rows, tmp_path):
    experiment = tiny.experiment(rows, {"method.name": "centralised"})
    summary = simulate(experiment, tmp_path / "run", tiny.Quiet())
    assert [record["teachers"] for record in tiny.rounds(tmp_path / "run")] == [None, None]
    assert summary["teachers"] is None
