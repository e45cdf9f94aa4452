"""Where pictures lie, and where they are kept when they are decoded."""

import pytest

from cae.data import stored


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache of each test."""
    monkeypatch.setattr(stored, "DATA_DIR", tmp_path / "data")
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "cache"


@pytest.fixture
def root(tmp_path):
    return tmp_path / "pictures"
