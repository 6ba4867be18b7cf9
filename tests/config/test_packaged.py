"""Experiments by name."""

import pytest

from fedkd import config
from fedkd import configs as packaged
from fedkd.errors import ConfigError


def test_a_packaged_experiment_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.load("demo") == config.load(packaged.FOLDER / "demo.toml")
    assert "demo" in packaged.names()


def test_a_file_of_ones_own_goes_first_and_a_folder_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert config.load("demo").name == "demo"
    (tmp_path / "private").write_text(
        (packaged.FOLDER / "demo.toml").read_text().replace('"demo"', '"mine"')
    )
    assert config.load("private").name == "mine"


@pytest.mark.parametrize("text", ["demo.toml", "configs/demo"])
def test_a_path_is_no_name(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"'fedkd configs' shows; did you mean 'demo'\?$"):
        config.load(text)


def test_a_mistyped_file_is_answered_with_the_nearest_one_beside_it(tmp_path):
    (tmp_path / "patients.toml").touch()
    with pytest.raises(ConfigError, match=r"did you mean '.*/patients\.toml'\?$"):
        config.load(tmp_path / "pateints.toml")
