"""A distillation that is scored by something else than accuracy."""

import json

from small import small

from fedkd.jobs.distil import distil
from fedkd.reports import tables
from fedkd.runs.distil_schema import read


def test_every_model_and_epoch_has_the_scores_that_were_asked_for(rows, tmp_path):
    scores = ["calibration-error", "macro-f1", "confusion"]
    summary = distil(small(rows, task={"scores": scores}), tmp_path / "run")
    for model in (summary["student"], *summary["teachers"]):
        assert 0 <= model["calibration_error"] <= 1
        assert len(model["confusion"]) == 3
        assert "accuracy" not in model
    # Of an error less is better, so a gain is what it fell by.
    assert summary["gain"] == summary["plain"] - summary["student"]["calibration_error"]
    run = read(tmp_path / "run")
    assert run.summary.headline.name == "calibration-error"
    assert {"calibration_error", "macro_f1"} == set(run.epochs[0].figures)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Calibration error by epoch (lower is better)" in page
    assert tables.distilled(json.loads((tmp_path / "run" / "summary.json").read_text()))
