"""Migrations: to the newest revision, back and there again, without drift from the tables, on both databases."""

import multiprocessing
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import services
import sqlalchemy as sa

from pacs.index import schema
from pacs.index.connections import make_engine
from pacs.index.database import Index
from pacs.model.errors import ConfigurationError, Unavailable

KINDS = ["sqlite", "postgresql"]


@pytest.mark.parametrize("kind", KINDS)
def test_migrations_make_the_tables_that_the_code_expects(kind: str, tmp_path: Path) -> None:
    """Up, compare, down to nothing, and up again; a second upgrade changes nothing."""
    with services.database(kind, tmp_path) as url:
        schema.upgrade(url)
        schema.check(url)
        schema.downgrade(url)
        engine = make_engine(url)
        assert sa.inspect(engine).get_table_names() == ["alembic_version"]
        engine.dispose()
        schema.upgrade(url)
        schema.upgrade(url)
        schema.check(url)
        schema.revision_check(url)


@pytest.mark.parametrize("kind", KINDS)
def test_a_difference_between_tables_and_migrations_is_seen(kind: str, tmp_path: Path) -> None:
    """The comparison that guards against drift does see a missing column."""
    with services.database(kind, tmp_path) as url:
        schema.upgrade(url)
        engine = make_engine(url)
        with engine.begin() as connection:
            connection.execute(sa.text("ALTER TABLE series DROP COLUMN body_part"))
        engine.dispose()

        with pytest.raises(Exception, match="body_part"):
            schema.check(url)


@pytest.mark.parametrize("kind", KINDS)
def test_several_processes_may_upgrade_at_once(kind: str, tmp_path: Path) -> None:
    """One does it, the others wait."""
    with services.database(kind, tmp_path) as url:
        with multiprocessing.get_context("spawn").Pool(3) as pool:
            pool.map(schema.upgrade, [url] * 3)
        schema.revision_check(url)


@pytest.mark.parametrize("kind", KINDS)
def test_a_database_of_another_revision_is_refused(kind: str, tmp_path: Path) -> None:
    """One without tables, and one of a newer version, with what to do about it."""
    with services.database(kind, tmp_path) as url:
        with pytest.raises(ConfigurationError, match="pacs serve"):
            Index.open(url)
        schema.upgrade(url)
        engine = make_engine(url)
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        engine.dispose()
        with pytest.raises(ConfigurationError, match="newer"):
            Index.open(url)
        with pytest.raises(ConfigurationError, match="newer"):
            schema.upgrade(url)


@pytest.mark.parametrize("url", ["not a url", "mysql://x/y", "sqlite://", "sqlite:///:memory:"])
def test_a_url_that_cannot_be_used_is_refused(url: str) -> None:
    """Before anything is made."""
    with pytest.raises(ConfigurationError, match=r"database\.url"):
        schema.upgrade(url)


def test_a_server_that_is_away_is_unavailable() -> None:
    """Not a misconfiguration: trying again later may help. The message holds no password."""
    url = "postgresql+psycopg://user:secret@127.0.0.1:1/none"

    with pytest.raises(Unavailable) as raised:
        Index.open(url)

    assert "secret" not in str(raised.value)


def test_the_file_is_private_and_durable(tmp_path: Path) -> None:
    """Only its owner may read it; writes are ahead-logged and synchronous, as a C-STORE success promises."""
    path = tmp_path / "index.db"
    url = f"sqlite:///{path}"
    schema.upgrade(url)
    engine = make_engine(url)
    with engine.connect() as connection:
        synchronous = connection.exec_driver_sql("PRAGMA synchronous").scalar()
        foreign_keys = connection.exec_driver_sql("PRAGMA foreign_keys").scalar()
    engine.dispose()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert (synchronous, foreign_keys) == (2, 1)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The message says which file cannot be used."""
    with pytest.raises(ConfigurationError, match="no-folder"):
        schema.upgrade(f"sqlite:///{tmp_path}/no-folder/index.db")


def test_the_revisions_are_read_as_alembic_reads_them() -> None:
    """Processes that only ask for the newest revision do not import Alembic; what they read is the same chain."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(schema._config())

    assert schema.head() == scripts.get_current_head()
    chain = {one.revision: str(one.down_revision) for one in scripts.walk_revisions()}
    assert schema._revisions() == chain
    asked = "import sys, pacs.archive; print(sorted({'alembic', 'highdicom', 'mako'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True).stdout == "[]\n"
