"""Fixtures: a real archive behind a real DIMSE door."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import making
import pytest
from dimse.door import Door, opened


@pytest.fixture
def open_door(tmp_path: Path) -> Iterator[Callable[..., Door]]:
    """A function that opens a door with settings of its own: ``open_door(dicom__maximum_associations=2)``."""
    homes = count()
    with ExitStack() as stack:

        def open_one(**overrides: Any) -> Door:
            archive = stack.enter_context(making.archive(tmp_path / f"home{next(homes)}", **{"dicom__port": 0, **overrides}))
            return stack.enter_context(opened(archive))

        yield open_one


@pytest.fixture(scope="module")
def shared_door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """One door for all tests of a module that leave the archive as they found it; making one takes a second."""
    with making.archive(tmp_path_factory.mktemp("shared"), dicom__port=0) as archive, opened(archive) as one:
        yield one


@pytest.fixture
def door(open_door: Callable[..., Door]) -> Door:
    """A door with the default settings."""
    return open_door()
