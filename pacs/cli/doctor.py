"""`pacs doctor`: is this machine, and this home if there is one, fit to run? One line a check; exit code 1 if not."""

import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import typer

import pacs
from pacs.cli.console import Json, err, show
from pacs.model.errors import ArchiveError, Unavailable
from pacs.settings import Settings, load

LIBRARIES = (
    "alembic",
    "celery",
    "cryptography",
    "cv2",
    "granian",
    "highdicom",
    "imagecodecs",
    "jinja2",
    "numpy",
    "obstore",
    "pydicom",
    "pynetdicom",
    "redis",
    "SimpleITK",
    "sqlalchemy",
    "starlette",
)


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report."""

    name: str
    ok: bool
    detail: str


def doctor(as_json: Json = False) -> None:
    """Check this machine and this home; says what to do where something is wrong."""
    checks = list(examine())
    rows = [{"check": one.name, "ok": one.ok, "detail": one.detail} for one in checks]
    if as_json:
        show(rows, columns={}, as_json=True, empty="")
    else:
        marked = [{**row, "ok": "[green]ok[/]" if row["ok"] else "[bold red]wrong[/]"} for row in rows]
        show(marked, columns={"ok": "", "check": "Check", "detail": "Detail"}, as_json=False, empty="")
    if not all(one.ok for one in checks):
        err.print("pacs: something is wrong; see the lines marked so")
        raise typer.Exit(1)


def examine() -> Iterator[Check]:
    """Yield every check."""
    yield _guarded("python", lambda: f"{sys.version.split()[0]} on {sys.platform}")
    yield _guarded("package", lambda: f"mini-pacs {pacs.__version__} at {Path(pacs.__file__).parent}")
    for name in LIBRARIES:
        yield _guarded(name, lambda name=name: str(getattr(importlib.import_module(name), "__version__", "present")))  # type: ignore[misc]
    yield _guarded("lossless codec", _codec)
    yield _guarded("broker", _broker)
    yield _guarded("migrations", _migrations)
    yield _guarded("processors", _processors)
    try:
        settings = load()
    except ArchiveError as error:
        yield Check("settings", False, str(error))
        return
    yield Check("settings", True, f"home {settings.home}")
    if not (settings.home / "keys").is_dir():
        yield Check("home", True, "not made yet; `pacs serve` makes it")
        return
    yield _guarded("disk", lambda: _disk(settings))
    yield _guarded("archive", lambda: _archive(settings))
    yield _guarded("quotas", lambda: _quotas(settings))
    yield _guarded("held images", lambda: _held(settings))
    yield _guarded("bucket", lambda: _bucket(settings))
    yield _guarded("keys", lambda: _keys(settings))


def _guarded(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except ArchiveError as error:
        return Check(name, False, str(error))
    except Exception as error:
        return Check(name, False, f"{type(error).__name__}: {error}")


def _codec() -> str:
    import imagecodecs
    import numpy as np

    frame = np.arange(64 * 64, dtype="<i2").reshape(64, 64)
    stream = imagecodecs.htj2k_encode(frame, reversible=True)
    if not np.array_equal(imagecodecs.htj2k_decode(stream), frame):
        raise RuntimeError("HTJ2K does not give back what it was given; reinstall imagecodecs")
    return "HTJ2K gives back what it was given"


def _broker() -> str:
    from pacs.supervisor import broker

    return str(broker.find_server().name) + " is there"


def _migrations() -> str:
    from pacs.index import schema

    return f"revision {schema.head()}"


def _processors() -> str:
    from pacs.processing.registry import discover

    found = discover(Path(os.devnull))
    if not found:
        raise RuntimeError("no processors found; reinstall mini-pacs")
    return ", ".join(sorted(found))


def _disk(settings: Settings) -> str:
    usage = shutil.disk_usage(settings.home)
    floor = min(settings.store.floor_mb << 20, usage.total // 20)
    if usage.free < floor:
        raise RuntimeError(f"only {usage.free >> 20} MiB free; C-STORE is answered A700 until there is more room")
    return f"{usage.free >> 20} MiB free"


def _archive(settings: Settings) -> str:
    from pacs.archive import Archive

    with Archive.opened(settings, writer="cli") as archive:
        counts = archive.index.summary()
    return f"{counts['studies']} studies, {counts['instances']} instances, key {archive.image_key_id}"


def _quotas(settings: Settings) -> str:
    from pacs.archive import Archive

    with Archive.opened(settings, writer="cli") as archive:
        state = archive.quotas.state()
    full = [quota.name for quota, used, _ in state if used >= quota.size_bytes]
    if full:
        raise Unavailable(f"{', '.join(full)}: in use wholly, so arrivals are answered A700; forget something, or raise it")
    nearly = [quota.name for quota, _, warning in state if warning]
    return f"WARNING: nearly in use: {', '.join(nearly)} (`pacs quotas`)" if nearly else f"{len(state)}, none nearly in use"


def _held(settings: Settings) -> str:
    from pacs.archive import Archive

    with Archive.opened(settings, writer="cli") as archive:
        instances, series = archive.index.stranded()
    if instances:
        raise Unavailable(
            f"{instances} images of {series} series are held, and the job that was to clean them failed: "
            "`pacs jobs --state failed` says why, `pacs jobs again JOB` runs it again"
        )
    return "none wait for a job that failed"


def _bucket(settings: Settings) -> str:
    """Asks the bucket itself: does it answer, let us in, refuse to replace, and is it ours?"""
    from pacs.archive import Archive
    from pacs.upkeep.ship import said, standing

    if not settings.store.url:
        return "none configured; records stay in the home"
    with Archive.opened(settings, writer="cli") as archive:
        assert archive.tiers is not None
        now = said(standing(archive.tiers))
        try:
            archive.tiers.claim()
        except Unavailable as error:
            raise Unavailable(f"{error}; C-STORE goes on until the disk's floor. {now}") from error
    return f"answers, and is ours; {now}"


def _keys(settings: Settings) -> str:
    """Says loudly what is not wrong yet, and would be with the next lost disk; so it is no failure."""
    from pacs.archive import key_house

    house = key_house(settings)
    lonely = house.unexported()
    begun = "; a rotation was cut short: `pacs keys rotate` goes on" if house.change("image").begun() else ""
    begun += "; one was cut short: `pacs keys rotate --identity` goes on" if house.change("identity").begun() else ""
    if lonely:
        names = " and ".join(lonely)
        return f"WARNING: {names} never exported; lose this disk, and backups are noise (`pacs keys export`){begun}"
    return f"{house.provider}, {'exported' if house.kept_here else 'given from outside'}{begun}"
