"""`pacs identity`, `pacs quarantine` and `pacs deid` as somebody at a terminal meets them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import making
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from deid.test_exchange import identity
from typer.testing import CliRunner, Result

from pacs.archive import Archive
from pacs.cli.app import app
from pacs.deid.exchange import opened
from pacs.dicom import elements, part10
from pacs.ingest import ingest
from pacs.model.errors import Quarantined
from pacs.model.instance import Stored


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of which the commands are."""
    monkeypatch.setenv("PACS_HOME", str(tmp_path / "home"))
    with making.archive(tmp_path / "home"):
        yield tmp_path / "home"


def pacs(*words: str) -> Result:
    """Run a command."""
    return CliRunner().invoke(app, list(words))


def rows(*words: str) -> list[dict[str, Any]]:
    """Run a command with --json and return its objects."""
    return [json.loads(line) for line in pacs(*words, "--json").stdout.splitlines()]


def filled(home: Path) -> list[Stored]:
    """Store a series."""
    with Archive.opened(making.settings(home), writer="test") as archive:
        return [ingest(archive, making.received(ds)) for ds in making.ct_series(2)]


def events(home: Path, kind: str) -> list[Any]:
    """Return the events of a kind."""
    with Archive.opened(making.settings(home), writer="test") as archive:
        return [one for one in archive.index.events(0, 1000) if one.kind == kind]


@pytest.mark.parametrize(
    ("words", "level"),
    [
        (("--patient-id", making.PATIENT_ID), "patient"),
        (("--uid", making.STUDY_UID), "study"),
        (("--uid", f"{making.SERIES_UID}.1"), "image"),
        (("--accession", "ACC-5561907"), "study"),
    ],
)
def test_a_patient_is_found_by_what_the_hospital_calls_it(home: Path, words: tuple[str, ...], level: str) -> None:
    """With the pseudonyms; of a patient the studies as well. The audit holds who and why, and not whom."""
    stored = filled(home)[0]

    found = rows("identity", "find", *words, "--reason", "recall of a device")

    assert found[0]["level"] == level
    assert stored.key.study_instance_uid in {row["study_instance_uid"] for row in found}
    (event,) = events(home, "identity_found")
    assert event.detail["reason"] == "recall of a device" and event.detail["user"]
    assert not any(word in str(event) for word in making.PLANTED)


def test_originals_are_revealed_by_pseudonym(home: Path) -> None:
    """Of an instance all that was taken, of a study what is the study's and the patient's."""
    stored = filled(home)[0]

    values = {
        row["keyword"]: row["value"] for row in rows("identity", "reveal", stored.key.sop_instance_uid, "--reason", "why")
    }
    of_study = {row["keyword"] for row in rows("identity", "reveal", stored.key.study_instance_uid, "--reason", "why")}

    assert values["PatientName"] == making.PATIENT_NAME
    assert values["SOPInstanceUID"] == f"{making.SERIES_UID}.1"
    assert {"PatientID", "StudyInstanceUID"} <= of_study and "SOPInstanceUID" not in of_study
    assert len(events(home, "identity_revealed")) == 2


def test_nobody_looks_without_a_reason(home: Path) -> None:
    """Usage, exit code 2; nothing is shown and nothing is written."""
    filled(home)

    for words in (("find", "--patient-id", making.PATIENT_ID), ("reveal", "2.25.1")):
        refused = pacs("identity", *words)
        assert refused.exit_code == 2
        assert "--reason" in refused.output
    assert events(home, "identity_found") == []


def test_nobody_looks_without_the_key(home: Path) -> None:
    """The identity key may be kept from who runs the archive: then the vault is closed."""
    filled(home)
    (home / "keys" / "identity.key").unlink()

    refused = pacs("identity", "find", "--patient-id", making.PATIENT_ID, "--reason", "curious")

    assert refused.exit_code == 1
    assert "identity.key" in refused.output


def test_an_unknown_patient_is_exit_code_1(home: Path) -> None:
    """And a question that is none is exit code 2."""
    assert pacs("identity", "find", "--patient-id", "nobody", "--reason", "why").exit_code == 1
    assert pacs("identity", "find", "--reason", "why").exit_code == 2
    assert pacs("identity", "find", "--uid", "1.2", "--accession", "3", "--reason", "why").exit_code == 2
    assert pacs("identity", "reveal", "2.25.9", "--reason", "why").exit_code == 1


def test_a_quarantined_object_is_shown_let_in_or_discarded(home: Path) -> None:
    """Shown by reason; refused if it would come back; let in under another policy; discarded when asked to; all audited."""
    ids = []
    with Archive.opened(making.settings(home, deid__policy="basic"), writer="test") as archive:
        for number in (1, 2):
            with pytest.raises(Quarantined):
                ingest(archive, making.received(making.dataset(instance=number, BurnedInAnnotation="YES")))
            ids.append(archive.index.quarantine.list()[0].quarantine_id)

    (shown,) = rows("quarantine", "show", ids[0])
    refused = pacs("quarantine", "release", ids[0], "--policy", "basic")
    (let_in,) = rows("quarantine", "release", ids[0], "--policy", "research")
    discarded = pacs("quarantine", "discard", ids[1], "--yes")

    assert shown["reason"] == "Burned In Annotation is YES" and shown["now"]
    assert refused.exit_code == 1 and "stays in quarantine" in refused.output
    assert let_in["held_for"] == ["pixels"]
    assert discarded.exit_code == 0
    assert rows("quarantine", "list") == []
    assert pacs("quarantine", "show", ids[0]).exit_code == 1
    assert len(events(home, "quarantine_released")) == len(events(home, "quarantine_discarded")) == 1
    assert not any(word in str(shown) for word in making.PLANTED)


def test_explain_and_check_speak_of_files(home: Path, tmp_path: Path) -> None:
    """Values only when asked for; a clean file is exit code 0, an identified one 1."""
    path = tmp_path / "a.dcm"
    path.write_bytes(making.part10(making.dataset()))
    filled(home)

    told, shown = rows("deid", "explain", str(path)), rows("deid", "explain", str(path), "--values", "--changed")
    judged = pacs("deid", "check", str(path))
    uid = rows("studies")[0]["study_instance_uid"]
    assert pacs("get", uid, "-o", str(tmp_path / "out")).exit_code == 0
    clean = pacs("deid", "check", str(tmp_path / "out"))

    assert told[0]["outcome"] == "stored"
    assert not any(word in str(told) for word in making.PLANTED)
    assert any(row.get("before") == making.PATIENT_NAME for row in shown)
    assert judged.exit_code == 1 and "identity" in judged.output
    assert clean.exit_code == 0, clean.output


def test_identity_leaves_sealed_for_one_recipient(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Off by default; with a certificate each file bears the identity, which only its key opens."""
    filled(home)
    uid = rows("studies")[0]["study_instance_uid"]
    refused = pacs("get", uid, "-o", str(tmp_path / "out"), "--sealed-identity")
    key = rsa.generate_private_key(65537, 2048)
    (tmp_path / "to.pem").write_bytes(identity(key).public_bytes(Encoding.PEM))
    monkeypatch.setenv("PACS_DEID_RECIPIENT_CERTIFICATE", str(tmp_path / "to.pem"))

    done = pacs("get", uid, "-o", str(tmp_path / "out"), "--sealed-identity")

    assert refused.exit_code == 1 and "deid.recipient_certificate" in refused.output
    assert done.exit_code == 0, done.output
    for path in (tmp_path / "out").rglob("*.dcm"):
        data = path.read_bytes()
        assert not any(word.encode() in data for word in making.PLANTED)
        taken = opened(elements.walk(part10.split(data).data_set), identity(key), key)
        assert making.PATIENT_NAME.encode() in taken[0x00100010]
