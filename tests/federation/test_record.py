import numpy as np
import pytest
import tiny
import torch

from fedkd.exchange.messages import Value
from fedkd.jobs.simulate import simulate
from fedkd.methods.fedavg import FedAvg
from fedkd.reports import report


class Boasting(FedAvg):
    """FedAvg whose client 1 claims a billion examples."""

    def client(self, ctx, broadcast):
        upload = super().client(ctx, broadcast)
        if ctx.client != 1:
            return upload
        origin = upload.values["count"].provenance
        return upload.with_values({"count": Value(torch.tensor(10**9), origin)})


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


@pytest.mark.parametrize(("most", "weighed"), [(None, 0.625), (0.4, 0.4)])
def test_who_claims_more_than_its_share_is_in_the_record_and_on_the_page(
    rows, tmp_path, most, weighed
):
    changes = {"clients.models": ["mlp"], "student.model": "mlp", "clients.max_weight": most}
    boasting = tiny.experiment(rows, {**changes, "method.name": "test_record:Boasting"})
    simulate(boasting, tmp_path / "run", tiny.Quiet())
    for record in tiny.rounds(tmp_path / "run"):
        [cut] = record["capped"]
        assert (cut["client"], cut["weighed"]) == (1, pytest.approx(weighed))
        assert cut["claimed"] > 0.9999
    page = report.write(tmp_path / "run").read_text()
    said = f"Client 1 claimed 100.0% of the weight and has {100 * weighed:.1f}%"
    loud = ", more than all others together: set clients.max_weight to 0.5 or less."
    assert f"{said}{loud if weighed > 0.5 else '.'}" in page
    simulate(
        tiny.experiment(rows, {**changes, "method.name": "fedavg"}), tmp_path / "x", tiny.Quiet()
    )
    assert [record["capped"] for record in tiny.rounds(tmp_path / "x")] == [[], []]
    assert "claimed" not in report.write(tmp_path / "x").read_text()


def test_the_key_is_no_part_of_what_sites_allow_unless_it_is_given(rows):
    assert "max_weight" not in tiny.experiment(rows).to_json()
    assert '"max_weight":0.4' in tiny.experiment(rows, {"clients.max_weight": 0.4}).to_json()
