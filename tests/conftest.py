"""Data that many tests share."""

import warnings
from pathlib import Path

import pytest
import tiny

with warnings.catch_warnings():
    # typer < 0.21, which flwr 1.41 pins, imports what click 8.5 calls deprecated.
    warnings.filterwarnings("ignore", "'click", DeprecationWarning)
    import typer  # noqa: F401


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .npz file of 240 rows of ten features in three classes."""
    return tiny.write_rows(tmp_path_factory.mktemp("data") / "rows.npz")
