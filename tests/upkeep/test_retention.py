"""Retention rules forget what they name and nothing else; what is protected or committed stays; quotas refuse by name."""

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import making
import pytest
import services
from typer.testing import CliRunner

from pacs.archive import Archive
from pacs.cli.app import app
from pacs.ingest import ingest
from pacs.lifecycle import DAY_S, quotas, retention_rules
from pacs.model.errors import ConfigurationError, OutOfResources, Refused
from pacs.model.lifecycle import PROTECTED
from pacs.upkeep import forget, retention
from pacs.upkeep.rebuild import rebuild
from pacs.upkeep.tend import Tender
from pacs.upkeep.verify import verify

OLD = {"name": "old CT", "days": 30, "where": {"Modality": "CT"}}
LATER_S = 31 * DAY_S


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of either kind."""
    with services.database(request.param, tmp_path) as found:
        yield found


def new_uid() -> str:
    """Return a UID that leaves room for those made of it."""
    return f"2.25.{uuid.uuid4().int >> 64}"


def put(archive: Archive, *, modality: str = "CT", study: str = "", **attributes: Any) -> str:
    """Put an image of a study of its own in; returns the archive's UID of the study."""
    uid = study or new_uid()
    ds = making.dataset(study_uid=uid, series_uid=new_uid())
    ds.Modality = modality
    ds.SOPInstanceUID = new_uid()
    for name, value in attributes.items():
        setattr(ds, name, value)
    return ingest(archive, making.received(ds)).key.study_instance_uid


def due(archive: Archive, after_s: float = LATER_S) -> dict[str, str]:
    """Return the studies that are due after a while, and what keeps them."""
    return {one.study.study_instance_uid: one.kept_by for one in retention.due(archive, now=time.time() + after_s)}


def test_a_rule_names_by_age_and_attributes(tmp_path: Path, url: str) -> None:
    """Only what is old enough, and of which every series that was sent is as the rule says."""
    with making.archive(tmp_path / "home", database__url=url, store__retain=(OLD,)) as archive:
        ct, mr = put(archive), put(archive, modality="MR")
        both = new_uid()
        mixed = put(archive, study=both)
        assert put(archive, modality="PT", study=both) == mixed

        assert due(archive, 29 * DAY_S) == {}
        assert due(archive) == {ct: ""}
        assert mr not in due(archive)


def test_a_rule_may_ask_for_the_date_of_the_study(tmp_path: Path) -> None:
    """By the Study Date that the archive keeps; a study without one has no age, and stays."""
    rule = {"name": "by date", "study_days": 3650}
    with making.archive(tmp_path / "home", store__retain=(rule,)) as archive:
        old = put(archive, StudyDate="19990101")
        young = put(archive, StudyDate=time.strftime("%Y%m%d"))
        none = put(archive, StudyDate="")

        assert due(archive, 2 * DAY_S) == {old: ""}
        assert due(archive, 4000 * DAY_S).keys() == {old, young}
        assert none not in due(archive, 40000 * DAY_S)


def test_labels_are_asked_for(tmp_path: Path, url: str) -> None:
    """A rule may ask for a label, or for its absence."""
    rules = ({**OLD, "name": "a", "label": "trial-*"}, {"name": "b", "days": 60, "label": "!keep*"})
    with making.archive(tmp_path / "home", database__url=url, store__retain=rules) as archive:
        trial, kept, plain = (put(archive) for _ in range(3))
        archive.index.lifecycle.label(trial, "trial-7")
        archive.index.lifecycle.label(kept, "keep for teaching")

        assert due(archive) == {trial: ""}
        assert due(archive, 61 * DAY_S).keys() == {trial, plain}


def test_what_is_protected_or_committed_stays(tmp_path: Path, url: str) -> None:
    """Protection holds against every rule and against `forget`; commitment against rules that do not name it."""
    rules = (OLD, {**OLD, "name": "all the same", "days": 100, "committed": True})
    with making.archive(tmp_path / "home", database__url=url, store__retain=rules) as archive:
        plain, guarded, committed = (put(archive) for _ in range(3))
        archive.index.lifecycle.label(guarded, PROTECTED, "shown in court")
        number = archive.index.commitments.add("WS", "2.25.1", b"sealed", "k", 1)
        archive.index.commitments.checked(number, {}, {committed})

        found = due(archive)
        assert found[plain] == "" and "shown in court" in found[guarded] and "commitment" in found[committed]
        (path,) = retention.run(archive, retention.due(archive, now=time.time() + LATER_S), now=time.time() + LATER_S)

        assert {one.study_instance_uid for one in archive.index.studies()} == {guarded, committed}
        assert json.loads(path.read_text())["reason"] == "retention rule old CT"
        (told,) = [one for one in archive.index.events(limit=1000) if one.kind == "study_forgotten"]
        assert (told.study_instance_uid, told.detail) == (plain, {"reason": "retention rule old CT"})
        assert [one["genuine"] for one in forget.certificates(archive)] == [True]
        with pytest.raises(Refused, match="shown in court"):
            forget.forget(archive, forget.belongings(archive, study_instance_uids=[guarded]))
        assert due(archive, 101 * DAY_S)[committed] == ""
        assert archive.index.lifecycle.unlabel(guarded, PROTECTED)
        assert due(archive)[guarded] == ""
        assert list(verify(archive)) == []


def test_a_study_that_changed_meanwhile_stays(tmp_path: Path) -> None:
    """Between the list and the deed a new image came, or somebody protected it."""
    with making.archive(tmp_path / "home", store__retain=(OLD,)) as archive:
        guarded, gone = put(archive), put(archive)
        now = time.time() + LATER_S
        what = retention.due(archive, now=now)
        archive.index.lifecycle.label(guarded, PROTECTED, "now")

        retention.run(archive, what, now=now)

        assert [one.study_instance_uid for one in archive.index.studies()] == [guarded]
        assert gone not in due(archive)


def test_only_automatic_rules_run_by_themselves_and_never_wholesale(tmp_path: Path) -> None:
    """The scheduler's upkeep carries them out; where they name nearly everything, it does nothing."""
    rules = ({**OLD, "label": "done", "automatic": True}, {**OLD, "name": "by hand"})
    with making.archive(tmp_path / "home", store__retain=rules, store__retain_most=0.5) as archive:
        studies = [put(archive) for _ in range(12)]
        now = time.time() + LATER_S
        for one in studies[:11]:
            archive.index.lifecycle.label(one, "done")
        assert retention.by_itself(archive, now=now) == [], "11 of 12 are more than half, and more than a few"
        for one in studies[:5]:
            archive.index.lifecycle.unlabel(one, "done")
        assert len(retention.by_itself(archive, now=now)) == 1
        assert len(archive.index.studies()) == 6
        Tender(archive).tick()
        assert len(archive.index.studies()) == 6, "nothing of today is a month old"


def test_a_rebuilt_index_forgets_nothing_by_a_rule(tmp_path: Path) -> None:
    """Labels are in no record, so after a rebuild everything is protected until somebody says otherwise."""
    with making.archive(tmp_path / "home", store__retain=(OLD,)) as archive:
        study = put(archive)
    (tmp_path / "home" / "index.db").rename(tmp_path / "lost.db")
    for one in (tmp_path / "home").glob("index.db-*"):
        one.unlink()
    with making.archive(tmp_path / "home", store__retain=(OLD,)) as archive:
        rebuild(archive)
        assert "rebuilt" in due(archive)[study]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"name": "x"}, "days"),
        ({"name": "x", "days": -1}, "days"),
        ({"name": "x", "days": 1, "where": {"NoSuch": "CT"}}, "NoSuch"),
        ({"name": "x", "days": 1, "where": {"Modality": "</"}}, "comparison"),
        ({"name": "x", "days": 1, "action": "sell"}, "action"),
        ({"days": 1}, "name"),
        ({"name": "x", "days": 1, "automatic": "yes"}, "automatic"),
    ],
)
def test_a_wrong_rule_is_refused_at_the_start(tmp_path: Path, table: dict[str, Any], said: str) -> None:
    """The message names the rule and what is wrong; a second rule of one name is refused as well."""
    with pytest.raises(ConfigurationError, match=said):
        retention_rules((table,))
    with pytest.raises(ConfigurationError, match="name"):
        retention_rules((OLD, OLD))
    with pytest.raises(ConfigurationError), making.archive(tmp_path / "home", store__retain=(table,)):
        pass


def test_a_full_quota_refuses_by_name(tmp_path: Path, url: str) -> None:
    """What comes under it is refused as out of resources; others go on, equal resends too, and room is used again."""
    quota = {"name": "scanner", "source": "MOD*", "gb": 1e-9}
    with making.archive(tmp_path / "home", database__url=url, store__quotas=(quota,)) as archive:
        first = making.dataset(instance=1)
        study = ingest(archive, making.received(first)).key.study_instance_uid
        archive.quotas._looked_at = archive.quotas._counted_at = -1e9

        with pytest.raises(OutOfResources, match="quota scanner"):
            ingest(archive, making.received(making.dataset(instance=2)))
        assert not ingest(archive, making.received(first)).fresh
        ingest(archive, making.received(making.dataset(instance=3), source="OTHER"))
        ((_, used, warning),) = archive.quotas.state()
        assert used > 0 and warning

        forget.forget(archive, forget.belongings(archive, study_instance_uids=[study]))
        archive.quotas._counted_at = -1e9
        assert ingest(archive, making.received(making.dataset(instance=2))).fresh


def test_what_has_come_since_is_added(tmp_path: Path) -> None:
    """The whole archive's quota is noticed within a second of what came, without counting all again."""
    moment = [0.0]
    with making.archive(tmp_path / "home", store__quota_gb=100_000 / (1 << 30)) as archive:
        archive.quotas._clock = lambda: moment[0]
        archive.quotas._looked_at = archive.quotas._counted_at = -1e9
        stored = 0
        with pytest.raises(OutOfResources, match="quota archive"):
            for number in range(1, 500):
                moment[0] += 1.5
                ingest(archive, making.received(making.dataset(instance=number)))
                stored += 1
        assert moment[0] < 600 and stored > 1
        assert 100_000 <= archive.quotas.state()[0][1] < 200_000


def test_a_quota_must_be_one() -> None:
    """Without a size, a way in or a name it is refused."""
    for table in (
        {"name": "x", "gb": 1},
        {"name": "x", "source": "A"},
        {"source": "A", "gb": 1},
        {"name": "x", "gb": 0, "source": "A"},
    ):
        with pytest.raises(ConfigurationError, match=r"store\.quotas"):
            quotas((table,), 0)


def test_the_commands_do_what_the_document_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """protect, label, quotas, retention test and run, as docs/looking-after.md has them."""
    home = tmp_path / "home"
    with making.archive(home) as archive:
        one, two = put(archive), put(archive)
        with archive.index._connections.write() as connection:
            connection.exec_driver_sql("UPDATE instance SET stored_at = stored_at - 40 * 86400")
    (home / "pacs.toml").write_text(
        '[store]\nquota_gb = 1\n[[store.retain]]\nname = "old CT"\ndays = 30\nwhere = {Modality = "CT"}\n', encoding="utf-8"
    )
    monkeypatch.setenv("PACS_HOME", str(home))

    def pacs(*words: str, code: int = 0) -> list[dict[str, Any]]:
        result = CliRunner().invoke(app, list(words))
        assert result.exit_code == code, result.output
        return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]

    pacs("protect", one, code=2)
    assert pacs("protect", one, "--reason", "teaching", "--json")[0]["reason"] == "teaching"
    assert [row["study_instance_uid"] for row in pacs("protect", "--json")] == [one]
    pacs("label", two, "trial-7")
    pacs("label", two, "protected", code=2)
    assert pacs("quotas", "--json")[0]["limit_bytes"] == 1 << 30
    found = {row["study_instance_uid"]: row for row in pacs("retention", "test", "--json")}
    assert found[one]["kept_by"] == "protected: teaching" and found[two]["labels"] == ["trial-7"]
    pacs("retention", "test", "--rule", "none", code=1)
    assert len(pacs("retention", "run", "--json")) == 2
    (done,) = pacs("retention", "run", "--yes", "--json")
    assert Path(done["certificate"]).exists()
    pacs("forget", "--study", one, "--yes", code=1)
    pacs("protect", one, "--remove")
    pacs("forget", "--study", one, "--yes")
    assert pacs("studies", "--json") == []
