"""`pacs worklist`: the commands of docs/worklist.md."""

import json
from collections.abc import Callable
from pathlib import Path

import making
import pytest
from click.testing import Result
from typer.testing import CliRunner
from workflow.orders import OMI, ORM, item

from pacs.cli.app import app

Pacs = Callable[..., Result]


@pytest.fixture
def pacs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pacs:
    """A function that runs a command on a home of its own."""
    with making.archive(tmp_path / "home"):
        pass
    monkeypatch.setenv("PACS_HOME", str(tmp_path / "home"))
    return lambda *words, given=None: CliRunner().invoke(app, ["worklist", *words], input=given)


def test_items_come_by_option_by_json_and_by_hl7_and_go_again(pacs: Pacs, tmp_path: Path) -> None:
    """One by its options, two of a JSON list, two orders; one is removed by its id, one by an HL7 cancellation."""
    added = pacs(
        "add", "--patient-name", "Oberhuber^Zita", "--patient-id", "PID-1", "--station", "CT1",
        "--date", "20991122", "--time", "1030", "--modality", "CT", "--accession", "ACC-1", "--json",
    )  # fmt: skip
    listed = tmp_path / "items.json"
    model = {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Model^Ann"}]},
        "00100020": {"vr": "LO", "Value": ["PID-M"]},
        "00080050": {"vr": "SH", "Value": ["ACC-M"]},
        "00400100": {
            "vr": "SQ",
            "Value": [
                {
                    "00080060": {"vr": "CS", "Value": ["US"]},
                    "00400001": {"vr": "AE", "Value": ["US1"]},
                    "00400002": {"vr": "DA", "Value": ["20991123"]},
                }
            ],
        },
    }
    listed.write_text(json.dumps([item(AccessionNumber="ACC-2"), model]))
    orders = tmp_path / "orders.hl7"
    orders.write_bytes((ORM + OMI).replace("2026112", "2099112").encode())

    assert added.exit_code == 0, added.output
    assert pacs("import", str(listed)).exit_code == 0
    assert pacs("import", str(orders)).exit_code == 0
    rows = [json.loads(line) for line in pacs("list", "--json").stdout.splitlines()]
    assert sorted(row["accession_number"] for row in rows) == ["ACC-1", "ACC-10", "ACC-2", "ACC-9", "ACC-M"]

    assert pacs("remove", json.loads(added.stdout)["item_id"]).exit_code == 0
    assert pacs("import", "-", given=ORM.replace("ORC|NW", "ORC|CA")).exit_code == 0
    left = [json.loads(line)["accession_number"] for line in pacs("list", "--json").stdout.splitlines()]
    assert sorted(left) == ["ACC-10", "ACC-2", "ACC-M"]


def test_what_is_wrong_is_said_in_one_line(pacs: Pacs, tmp_path: Path) -> None:
    """Exit code 1 and which attribute; no value of the item."""
    path = tmp_path / "item.json"
    path.write_text(json.dumps(item(ScheduledStationAETitle=None)))

    refused = pacs("import", str(path))
    accepted = pacs("import", str(path), "--station", "CT9")

    assert refused.exit_code == 1 and "ScheduledStationAETitle is missing" in refused.stderr
    assert "Oberhuber" not in refused.output
    assert accepted.exit_code == 0
    assert pacs("remove", "nothing").exit_code == 1
