"""An index on each database we support, over the same tests."""

from collections.abc import Iterator
from pathlib import Path

import arrivals
import pytest
from services import postgres_url, valkey_url

from pacs.index.database import Index

__all__ = ["postgres_url", "valkey_url"]


@pytest.fixture
def clock() -> arrivals.Clock:
    """A clock that the test sets."""
    return arrivals.Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def index(request: pytest.FixtureRequest, tmp_path: Path, clock: arrivals.Clock) -> Iterator[Index]:
    """An empty index with its own database."""
    with arrivals.opened(request.param, tmp_path, clock) as (opened, _):
        yield opened
