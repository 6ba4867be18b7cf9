"""UCI's heart disease data: what a cell becomes, who is held out, whose a patient is."""

from pathlib import Path

import hospitals
import pytest
import torch

from fedkd import config, data
from fedkd.data.readers import heart
from fedkd.data.readers.tables import columns
from fedkd.errors import DataError
from fedkd.federation.prepare import prepare

CLEVELAND = "63.0,1.0,1.0,145.0,233.0,1.0,2.0,150.0,0.0,2.3,3.0,0.0,6.0,0\n"
UNKNOWN = "34,0,4,?,0,?,?,?,?,?,?,?,?,3\n"
HERE = any(found for _, found in data.locations(heart.NAME))


def one(tmp_path: Path, line: str) -> dict[str, float]:
    file = tmp_path / "processed.va.data"
    file.write_text(line)
    [row] = heart.read(file).x
    return dict(zip(heart.FEATURES, row.tolist(), strict=True))


def test_a_patient_is_scaled_by_fixed_limits_and_coded_by_published_codes(tmp_path: Path) -> None:
    told = one(tmp_path, CLEVELAND)
    expected = {
        "age": (63 - 55) / 25,
        "sex": 1,
        "cp=1": 1,
        "trestbps": (145 - 135) / 45,
        "chol": (233 - 200) / 100,
        "fbs": 1,
        "restecg=2": 1,
        "thalach": (150 - 135) / 65,
        "oldpeak": (2.3 - 2) / 2,
        "slope=3": 1,
        "ca": -1,
        "thal=6": 1,
    }
    assert {name: value for name, value in told.items() if value} == pytest.approx(expected)


def test_what_is_missing_is_0_and_says_so_and_a_cholesterol_of_0_is_missing(tmp_path: Path) -> None:
    told = one(tmp_path, UNKNOWN)
    missing = {
        columns.test_of(name) for name, value in told.items() if name.endswith("?") and value
    }
    assert missing == set(heart.TESTS) - {"age", "sex", "cp"}
    shown = {name for name, value in told.items() if value and not name.endswith("?")}
    assert shown == {"age", "cp=4"}
    none_missing = one(tmp_path, CLEVELAND)
    assert not any(value for name, value in none_missing.items() if name.endswith("?"))


@pytest.mark.parametrize("test", ["trestbps", "chol"])
def test_0_is_no_measurement_of_pressure_or_cholesterol(test: str, tmp_path: Path) -> None:
    cells = CLEVELAND.strip().split(",")
    cells[heart.TESTS.index(test)] = "0"
    told = one(tmp_path, ",".join(cells))
    assert (told[test], told[f"{test}?"]) == (0.0, 1.0)


FAULTS = {
    "": "is empty",
    "63,1,1\n": "patient 1: 3 values; expected 13 tests and the diagnosis",
    CLEVELAND + CLEVELAND.replace("63.0", "?"): "patient 2: age is missing",
    CLEVELAND.replace(",6.0,", ",5,"): r"patient 1: thal is '5'; expected one of \(3, 6, 7\)",
    CLEVELAND.replace("145.0", "inf"): "patient 1: trestbps is 'inf'; expected a finite number",
    CLEVELAND.replace("145.0", "high"): "patient 1: .*'high'",
    CLEVELAND.replace(",0\n", ",7\n"): "patient 1: the diagnosis is '7'; expected 0 to 4",
}


@pytest.mark.parametrize("text", FAULTS)
def test_a_fault_names_file_and_patient(text: str, tmp_path: Path) -> None:
    file = tmp_path / "processed.va.data"
    file.write_text(text)
    with pytest.raises(DataError, match=r"processed\.va\.data: " + FAULTS[text]):
        heart.read(file)


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDKD_DATA", str(tmp_path))
    return hospitals.write(tmp_path / heart.FOLDER)


def test_hospitals_are_natural_clients_and_some_of_each_are_held_out(made_up: Path) -> None:
    section = config.Data(
        name="heart-disease", test_share=0.25, partition=config.Natural(scheme="natural")
    )
    told = data.federate(section, clients=None, seed=3)
    kept = [len(own) for own in told.clients]
    assert all(0 < n <= most for n, most in zip(kept, (24, 20, 16, 12), strict=True))
    assert len(told.test) == pytest.approx(18, abs=14)  # four standard deviations
    assert (told.classes, told.class_names, told.features) == (
        2,
        ("healthy", "ill"),
        heart.FEATURES,
    )
    scanned = [bool((~heart.missing(own.x, "ca")).any()) for own in told.clients]
    assert scanned == [True, True, False, True]
    everybody = torch.cat([heart.read(made_up / file).x for file in heart.FILES])
    both = torch.cat([told.pooled().x, told.test.x])
    assert sorted(both.tolist()) == sorted(everybody.tolist())
    same, other = (data.load(section, seed=seed).test.x for seed in (3, 4))
    assert torch.equal(same, told.test.x)
    assert not torch.equal(other, told.test.x)


def test_every_patient_may_be_needed_for_training(made_up: Path) -> None:
    section = config.Data(name="heart-disease", test_share=1e-6)
    with pytest.raises(DataError, match=r"data\.test_share = 1e-06 leaves no patient"):
        data.load(section, seed=0)


def test_where_the_files_are_not_one_line_says_where_to_get_and_to_put_them(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDKD_DATA", str(tmp_path))
    assert not data.fetched("heart-disease")
    assert not any(found for _, found in data.locations("heart-disease"))
    with pytest.raises(DataError, match=r"archive\.ics\.uci\.edu.*processed\.va\.data") as caught:
        data.load(config.Data(name="heart-disease"), seed=0)
    assert str(cache / "heart_disease") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not HERE, reason="UCI's heart disease data is not on this machine")
def test_uci_s_files_have_their_known_counts() -> None:
    [folder] = [Path(at) for at, found in data.locations("heart-disease") if found][:1]
    read = [heart.read(folder / file) for file in heart.FILES]
    assert [len(own) for own in read] == [303, 294, 123, 200]
    assert [int(own.y.sum()) for own in read] == [139, 106, 115, 149]
    lacking = {
        test: [int(heart.missing(own.x, test).sum()) for own in read] for test in heart.TESTS
    }
    assert lacking["ca"] == [4, 291, 118, 198]
    assert lacking["thal"] == [2, 266, 52, 166]
    assert lacking["chol"] == [0, 23, 123, 56]  # of which 123 and 49 are zeros
    assert lacking["trestbps"] == [0, 1, 2, 57]  # one is a zero
    assert lacking["age"] == [0, 0, 0, 0]


def test_the_sample_experiment_shows_its_student_the_seven_cheap_tests(made_up: Path) -> None:
    file = Path(__file__).parents[2] / "fedkd" / "configs" / "heart_hospitals.toml"
    prepared = prepare(config.load(file, ["data.public.size=20"]))
    seen = [columns.test_of(name) for name in prepared.in_students_view.data.features]
    cheap = ["age", "sex", "cp", "trestbps", "chol", "fbs", "restecg"]
    assert list(dict.fromkeys(seen)) == cheap
    assert prepared.setting.clients == 4
