"""A study is forgotten: nothing answers for it any more, and no saved copy of the store gives it back."""

import json
import shutil
from pathlib import Path
from typing import Any

import making
import pytest
from filling import derived, fill
from typer.testing import CliRunner

from pacs.archive import Archive
from pacs.cli.app import app
from pacs.ingest import ingest, ingest_derived
from pacs.model.errors import IntegrityError, NotFound
from pacs.model.job import NewJob
from pacs.store import certificate
from pacs.store.segments import SegmentStore
from pacs.upkeep import forget as upkeep
from pacs.upkeep.verify import verify


def big_study(archive: Archive) -> str:
    """Return the study with the derived object."""
    return next(one for one in archive.index.studies() if one.derived_series).study_instance_uid


def test_nothing_of_a_forgotten_study_is_left(tmp_path: Path) -> None:
    """Sources, versions, derived objects, jobs, events, identities and the key are gone; the other study is as it was."""
    home = tmp_path / "home"
    with making.archive(home) as archive:
        fill(archive)
        study = big_study(archive)
        (other,) = (one.study_instance_uid for one in archive.index.studies() if one.study_instance_uid != study)
        archive.index.jobs.add([NewJob("k", "lungs", "1", {}, "r", "fast", study, ("2.25.1",), "asked for")])
        uids = {row.stored.key.sop_instance_uid for row in archive.index.upkeep.records_of(study)}
        shutil.copytree(home / "store", tmp_path / "saved")
        (there,) = upkeep.belongings(archive, study_instance_uids=[study])
        assert (there.instances, there.derived_instances, there.versions, there.jobs) == (5, 1, 1, 1)
        assert archive.vault is not None and archive.vault.of_study(study) is not None

        path = upkeep.forget(archive, [there])

        assert [one.study_instance_uid for one in archive.index.studies()] == [other]
        assert archive.index.locate(sop_instance_uids=sorted(uids)) == []
        assert archive.index.jobs.list() == []
        told = [one for one in archive.index.events(limit=1000) if one.study_instance_uid == study]
        assert [one.kind for one in told] == ["study_forgotten"]
        assert archive.vault.of_study(study) is None
        assert archive.vault.of_study(other) is not None
        assert list(verify(archive, deep=True)) == []
        with pytest.raises(NotFound):
            upkeep.belongings(archive, study_instance_uids=[study])

        document = json.loads(path.read_text())
        public = certificate.public_key(archive.identity)
        assert certificate.is_genuine(document, public)
        assert document["studies"][0]["study_instance_uid"] == study
        assert document["studies"][0]["instances"] == 5
        assert not certificate.is_genuine({**document, "done_at": "2001-01-01T00:00:00Z"}, public)
        assert [one["genuine"] for one in upkeep.certificates(archive)] == [True]
        for planted in making.PLANTED:
            assert planted not in path.read_text()

        # A saved copy of the segments, with the keys of today: the forgotten records are noise, the others open.
        saved = SegmentStore(tmp_path / "saved", writer="saved", segment_bytes=1 << 20, floor_bytes=0)
        opened = []
        for container in saved.containers():
            for _, record in saved.records(container):
                try:
                    opened.append(archive.sealer.open_entry(record).key.study_instance_uid)
                except IntegrityError as error:
                    assert "forgotten" in str(error)
        assert opened == [other]
    vault = b"".join(path.read_bytes() for path in (home / "identity").iterdir())
    assert vault.count(0) > len(vault) // 2


def test_a_forgotten_study_does_not_come_back(tmp_path: Path) -> None:
    """Neither at the next start, nor by a job that was running; sent again it is a new arrival under a new key."""
    from pacs.sweep import recover

    with making.archive(tmp_path / "home") as archive:
        fill(archive)
        study = big_study(archive)
        (job_id,) = archive.index.jobs.add([NewJob("k", "lungs", "1", {}, "r", "fast", study, ("2.25.1",), "asked for")])
        assert archive.index.jobs.claim(job_id, "w", 60.0)
        late = derived(archive)
        old_keys = archive.index.upkeep.study_key_ids([study])
        upkeep.forget(archive, upkeep.belongings(archive, study_instance_uids=[study]))

        from pacs.model.job import Claim

        with pytest.raises(NotFound):
            ingest_derived(archive, [late], finishing=Claim(job_id, "w"))
    with making.archive(tmp_path / "home") as archive:
        assert recover(archive) == 0
        assert archive.vault is not None
        archive.vault.recover()
        assert archive.vault.of_study(study) is None
        assert study not in {one.study_instance_uid for one in archive.index.studies()}
        stored = ingest(archive, making.received(making.dataset(instance=1)))
        assert stored.fresh and stored.key.study_instance_uid == study
        assert archive.index.upkeep.study_key_ids([study]).isdisjoint(old_keys)
        assert archive.vault.of_study(study) is not None
        assert list(verify(archive, deep=True)) == []


class PowerCut(BaseException):
    """Nothing after this line happens any more."""


@pytest.mark.parametrize("step", ["ring", "rows", "bytes", "vault", "signature"])
def test_a_forgetting_that_was_cut_short_is_finished(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut before each step: the next pass of the upkeep ends it and signs for it."""

    def cut(*_: Any, **__: Any) -> Any:
        raise PowerCut

    with making.archive(tmp_path / "home") as archive:
        fill(archive)
        study = big_study(archive)
        what = upkeep.belongings(archive, study_instance_uids=[study])
        with monkeypatch.context() as patch:
            target: tuple[Any, str] = {
                "ring": (type(archive.ring), "forget"),
                "rows": (type(archive.index.upkeep), "forget"),
                "bytes": (type(archive.objects), "delete"),
                "vault": (type(archive.vault), "forget"),
                "signature": (certificate, "sign"),
            }[step]
            patch.setattr(*target, cut)
            with pytest.raises(PowerCut):
                upkeep.forget(archive, what)

    with making.archive(tmp_path / "home") as archive:
        (path,) = upkeep.resume(archive)
        assert upkeep.resume(archive) == []
        assert certificate.is_genuine(json.loads(path.read_text()), certificate.public_key(archive.identity))
        assert json.loads(path.read_text())["studies"][0]["instances"] == 5
        assert study not in {one.study_instance_uid for one in archive.index.studies()}
        assert archive.vault is not None and archive.vault.of_study(study) is None
        findings = list(verify(archive, deep=True))
        # Cut between rows and bytes: what is left has no key and no row, and goes with the next compaction.
        assert {one.kind for one in findings} <= ({"orphan"} if step == "bytes" else set())


def test_a_patient_is_forgotten_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --yes it lists and does nothing; with it, every study of the pseudonym goes, and a certificate is named."""
    with making.archive(tmp_path / "home") as archive:
        fill(archive)
        patient = archive.index.studies()[0].patient_id
    monkeypatch.setenv("PACS_HOME", str(tmp_path / "home"))
    run = CliRunner().invoke

    listed = run(app, ["forget", "--patient", patient, "--json"])
    assert listed.exit_code == 0, listed.output
    assert sorted(json.loads(line)["instances"] for line in listed.stdout.splitlines()) == [1, 5]
    assert len([*map(json.loads, run(app, ["studies", "--json"]).stdout.splitlines())]) == 2

    done = run(app, ["forget", "--patient", patient, "--yes", "--json"])
    assert done.exit_code == 0, done.output
    assert Path(json.loads(done.stdout)["certificate"]).exists()
    assert run(app, ["studies", "--json"]).stdout == ""
    assert run(app, ["forget", "--patient", patient]).exit_code == 1
    assert run(app, ["forget"]).exit_code == 2
    assert json.loads(run(app, ["forget", "--certificates", "--json"]).stdout)["genuine"] is True
    assert run(app, ["verify", "--deep"]).exit_code == 0
