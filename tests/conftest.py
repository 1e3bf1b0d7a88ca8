"""What every test gets: its own cache folder, one thread, and the real data where they are there."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder that no other test has seen."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("DQAS_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ``shared`` beside the checkout: real images and the picks of the real DeepCore."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the folder shared/ with real data is not beside the checkout")
    return folder
