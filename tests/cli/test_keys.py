"""`pacs keys` as somebody at a terminal meets it."""

import json
from pathlib import Path

import making
import pytest
from typer.testing import CliRunner

from pacs.cli.app import app
from pacs.ingest import ingest


def pacs(*words: str) -> str:
    """Run a command, which must succeed, and return what it printed."""
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output
    return done.stdout


def test_either_key_is_rotated_and_the_status_tells_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One command each; the image key wraps the ring and its studies, the identity key its two secrets, before and after."""
    monkeypatch.setenv("PACS_HOME", str(tmp_path / "home"))
    with making.archive(tmp_path / "home") as archive:
        before = ingest(archive, making.received(making.dataset()))

    status = {one["name"]: one for one in map(json.loads, pacs("keys", "status", "--json").splitlines())}
    image, identity = (json.loads(pacs("keys", "rotate", *more, "--json")) for more in ((), ("--identity",)))
    after = {one["name"]: one for one in map(json.loads, pacs("keys", "status", "--json").splitlines())}

    assert {name: one["wraps"] for name, one in status.items()} == {"image": 2, "identity": 2}
    assert {name: one["wraps"] for name, one in after.items()} == {"image": 2, "identity": 2}
    assert {name: one["key_id"] for name, one in after.items()} == {"image": image["key_id"], "identity": identity["key_id"]}
    assert (image["destroyed"], identity["destroyed"]) == (status["image"]["key_id"], status["identity"]["key_id"])
    with making.archive(tmp_path / "home") as archive:
        assert ingest(archive, making.received(making.dataset())).key == before.key
