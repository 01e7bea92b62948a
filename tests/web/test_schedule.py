"""The worklist's page: items can be added and taken off; whom they are for is shown only where the settings say so."""

from pathlib import Path

import making
import pytest
from web.test_care import Site, sound

FORM = {
    "patient_name": "Oberhuber^Zita",
    "patient_id": "PID-1",
    "modality": "CT",
    "station": "CT1",
    "date": "2099-11-22",
    "time": "10:30",
    "description": "CT chest",
}


@pytest.mark.parametrize("named", [False, True])
def test_an_item_comes_by_the_form_and_goes_by_the_button(tmp_path: Path, named: bool) -> None:
    """When, where and what for everybody who is signed in; the patient only with `web.worklist_names`, and then audited."""
    with making.archive(tmp_path / "home", web__worklist_names=named) as archive:
        site = Site(archive)
        assert site.stranger.get("/worklist").status_code == 303
        assert "Nothing is scheduled" in site.browser.get("/worklist").text

        shown = site.browser.post("/worklist", data=FORM)
        (row,) = archive.index.worklist.candidates()
        sound(shown.text)
        assert "2099-11-22" in shown.text and "10:30" in shown.text and "CT1" in shown.text
        assert ("Oberhuber" in shown.text) is named
        kinds = [event.kind for event in archive.index.events(limit=100)]
        assert kinds.count("worklist_changed") == 1 and ("worklist_shown" in kinds) is named

        site.browser.post(f"/worklist/{row.item_id}/remove")
        assert archive.index.worklist.candidates() == []


def test_a_form_that_lacks_something_comes_back_as_it_was(tmp_path: Path) -> None:
    """400, what is missing, and nothing kept."""
    with making.archive(tmp_path / "home") as archive:
        answer = Site(archive).browser.post("/worklist", data={**FORM, "station": ""})

        assert answer.status_code == 400 and "ScheduledStationAETitle is missing" in answer.text
        assert 'value="2099-11-22"' in answer.text
        assert archive.index.worklist.candidates() == []
