"""What every test gets: its own cache folder, one thread, and the real data where they are there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dqas_adapters.deepcore.checkout import Checkout
    from report_problem import Page


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


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on results made by hand, in their folder; not to be changed."""
    from report_problem import page

    return page(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="session")
def read_page(report: Path) -> Page:
    """The same, taken apart."""
    from report_problem import Page

    return Page(report.read_text(encoding="utf-8"))


@pytest.fixture(params=["stand-in", "real"])
def checkout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Checkout]:
    """A DeepCore checkout, its methods registered as in an installation: the stand-in, and the real one if there is one."""
    from deepcore_problem import REAL, STANDIN, installed
    from dqas_adapters.deepcore.checkout import HOME, configured
    from dqas_plugin.plugins import plugins

    if request.param == "real" and not REAL:
        pytest.skip(f"{HOME} names no checkout of the real DeepCore")
    monkeypatch.setenv(HOME, str(STANDIN) if request.param == "stand-in" else str(REAL))
    installed(monkeypatch)
    yield configured() or pytest.fail("no checkout is configured")
    plugins.cache_clear()
