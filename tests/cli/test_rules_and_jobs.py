"""`pacs rules`, `pacs jobs` and `pacs processors recall` as people and scripts call them."""

import json
from pathlib import Path
from typing import Any

import making
import pytest
from typer.testing import CliRunner

from pacs.cli.app import app
from pacs.ingest import ingest
from pacs.model.job import Claim

RULES = """[[rule]]
name = "what is it"
where = { Modality = "CT" }
run = [{ use = "classify-series" }]

[[rule]]
name = "thin"
where = { SliceThickness = "<0.1" }
run = [{ use = "enhance" }]
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with one CT series."""
    with making.archive(tmp_path / "home") as archive:
        for one in making.ct_series(2):
            ingest(archive, making.received(one))
        archive.index.end_association("a1")
    monkeypatch.setenv("PACS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def pacs(*words: str, code: int = 0) -> list[dict[str, Any]]:
    """Run a command with --json; what it says."""
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == code, (words, done.output)
    return [json.loads(line) for line in done.stdout.splitlines()] if code == 0 else [{"error": done.stderr}]


def test_rules_are_checked_tried_and_replayed(home: Path, tmp_path: Path) -> None:
    """A mistake has its line; a dry run tells what fires and why not; a replay makes the jobs that are missing, once."""
    rules = tmp_path / "new.toml"
    rules.write_text(RULES.replace("SliceThickness", "SliceThicknes"))
    assert "line 8, rule thin: where.SliceThicknes is not" in pacs("rules", "check", str(rules), code=1)[0]["error"]
    rules.write_text(RULES)
    assert pacs("rules", "check", str(rules))[0]["rules"] == ["what is it", "thin"]

    said = pacs("rules", "test", str(rules))

    assert [(row["rule"], row["fires"], row["why"], row["line"]) for row in said] == [
        ("what is it", True, "", None),
        ("thin", False, "SliceThickness: <0.1", 8),
    ]
    (home / "rules.toml").write_text(RULES)
    series = said[0]["series_instance_uid"]
    assert [row["fires"] for row in pacs("rules", "explain", series)] == [True, False]
    assert "no study or series" in pacs("rules", "explain", "1.2.3", code=1)[0]["error"]
    assert pacs("jobs") == []
    for _ in range(2):
        assert len(pacs("rules", "replay", "--since", "2d", "--run")) == 2
        assert [job["rule"] for job in pacs("jobs")] == ["what is it"]
    assert [row["jobs_by_state"] for row in pacs("rules", "list")] == [{"queued": 1}, {}]
    assert "--since is a period" in pacs("rules", "replay", "--since", "always", code=2)[0]["error"]
    table = CliRunner().invoke(app, ["rules", "test"]).stdout
    assert "line 8: SliceThickness: <0.1" in table


def test_jobs_are_cancelled_repeated_and_recalled(home: Path) -> None:
    """Each command does what it says, and says no where it cannot."""
    (home / "rules.toml").write_text(RULES)
    pacs("rules", "replay", "--run")
    (job,) = pacs("jobs")
    job_id = job["job_id"]

    assert "it can run again when it has ended" in pacs("jobs", "again", job_id, code=1)[0]["error"]
    assert pacs("jobs", "cancel", job_id)[0]["state"] == "cancelled"
    assert "ended already" in pacs("jobs", "cancel", job_id, code=1)[0]["error"]
    assert pacs("jobs", "again", job_id) == [{"job_id": job_id}]
    assert "has no parameter strenth" in pacs("jobs", "again", job_id, "--set", "strenth=1", code=1)[0]["error"]
    assert "only one that failed" in pacs("jobs", "bundle", job_id, str(home / "b.zip"), code=1)[0]["error"]
    with making.archive(home) as archive:
        archive.index.jobs.claim(job_id, "w", 60)
        archive.index.jobs.succeed(Claim(job_id, "w"))

    assert pacs("processors", "recall", "classify-series", "--version", job["version"])[0]["recalled"] is True
    assert pacs("jobs")[0]["state"] == "recalled"
    assert [row["ended_at"] for row in pacs("processors", "recalls")] == [""]
    assert pacs("processors", "recall", "classify-series", "--version", job["version"], "--undo")[0]["recalled"] is False
    assert pacs("jobs")[0]["state"] == "succeeded"
    assert "is not recalled" in pacs("processors", "recall", "classify-series", "--version", "1", "--undo", code=1)[0]["error"]
