"""Fixtures for every room: the shared real data where it is present, and `--long`."""

from pathlib import Path

import pytest

pytest_plugins = ["services", "buckets"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --long: the same tests, with larger counts."""
    parser.addoption("--long", action="store_true", help="repeat tests with larger counts")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let a test take as long as its larger counts need; the outer `timeout` of whoever asks for --long is the limit."""
    if config.getoption("--long"):
        for item in items:
            item.add_marker(pytest.mark.timeout(4 * 3600), append=False)


@pytest.fixture(scope="session")
def long_run(request: pytest.FixtureRequest) -> bool:
    """True under --long."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real DICOM files beside the checkout, for development; the tests' own phantoms do without it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "dicom"
    if not folder.is_dir():
        pytest.skip("no real DICOM files at ../shared/data/dicom")
    return folder
