"""Any DICOM server may be judged: `pytest tests/conformance --target HOST:PORT --aet AET`; without a target, our own."""

from collections.abc import Iterator
from dataclasses import dataclass

import making
import pytest
from dimse.door import opened


@dataclass(frozen=True)
class Target:
    """The server under judgement. `ours` is true for the one that the tests started themselves."""

    host: str
    port: int
    ae_title: str
    ours: bool


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --target and --aet."""
    parser.addoption("--target", default="", help="HOST:PORT of the DICOM server to judge; empty: our own")
    parser.addoption("--aet", default="ANY-SCP", help="its AE title")


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The server to judge."""
    where = str(request.config.getoption("--target", default=""))
    if where:
        host, _, port = where.rpartition(":")
        yield Target(host.strip("[]"), int(port), str(request.config.getoption("--aet", default="ANY-SCP")), ours=False)
        return
    with making.archive(tmp_path_factory.mktemp("home"), dicom__port=0) as archive, opened(archive) as door:
        yield Target("127.0.0.1", door.port, archive.settings.dicom.ae_title, ours=True)
