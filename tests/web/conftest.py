"""A real archive behind a really running server, filled through its own door."""

from collections.abc import Iterator
from pathlib import Path

import making
import pytest
from serving import OTHER_STUDY, Served, cine, colour_image, free_port, run


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An empty archive behind a running server."""
    home: Path = tmp_path_factory.mktemp("home")
    yield from run(making.settings(home, web__port=free_port(), dicom__port=free_port()))


@pytest.fixture(scope="module")
def filled(served: Served) -> Served:
    """The same with two studies: a CT series, a colour image and a cine in one, a CT image in the other."""
    answer = served.stow(*making.ct_series(5), colour_image(), cine())
    assert answer.status_code == 200, answer.text
    other = making.dataset(study_uid=OTHER_STUDY, series_uid=f"{OTHER_STUDY}.1", patient_id="MRN-2", StudyDate="20200115")
    assert served.stow(other).status_code == 200
    return served
