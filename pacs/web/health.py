"""Is all of it ready? A list of small checks behind /readyz; each returns a word about what it saw or raises what is wrong.

`pacs health` and the supervisor ask here. To add a check, write a function of the archive and put it into `CHECKS`.
"""

import os
import shutil
import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pacs.archive import Archive
from pacs.model.errors import ArchiveError, Unavailable
from pacs.upkeep.ship import said, standing
from pacs.web.door import door, in_thread

Check = Callable[[Archive], str]
CONNECT_S = 1.0


def database(archive: Archive) -> str:
    """The index answers."""
    archive.index.ping()
    return "answers"


def store(archive: Archive) -> str:
    """The folder of records can be written to."""
    folder = archive.settings.home / "store"
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Unavailable("the folder of records cannot be written to")
    return "writable"


def disk(archive: Archive) -> str:
    """There is room above the floor under which nothing is taken in."""
    usage = shutil.disk_usage(archive.settings.home)
    return above_floor(usage.free, usage.total, archive.settings.store.floor_mb << 20)


def above_floor(free: int, total: int, floor: int) -> str:
    """Say how much room there is, in bytes all; the floor is at most a twentieth of the disk. Raises `Unavailable` below it."""
    floor = min(floor, total // 20)
    if free <= floor:
        raise Unavailable(f"only {free >> 20} MiB free; the floor is {floor >> 20} MiB")
    return f"{free >> 20} MiB free"


def bucket(archive: Archive) -> str:
    """How sending to the bucket goes. One that is away is no reason to refuse: records are durable here until it is back."""
    return "none configured" if archive.tiers is None else said(standing(archive.tiers))


def keys(archive: Archive) -> str:
    """The key files are still where the archive found them."""
    held = ("image.key", "identity.key") if archive.keys.kept_here else ()
    for name in (*held, "study-keys.db"):
        if not os.access(archive.settings.home / "keys" / name, os.R_OK):
            raise Unavailable(f"keys/{name} cannot be read")
    return archive.image_key_id


def dicom(archive: Archive) -> str:
    """The DICOM port answers."""
    host, port = archive.settings.dicom.host, archive.settings.dicom.port
    _connect("tcp", {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)
    return f"port {port}"


def broker(archive: Archive) -> str:
    """The broker's socket or port takes connections."""
    settings = archive.settings
    if not settings.processing.enabled:
        return "processing is off"
    if not settings.broker.url:
        return "none configured"
    url = urlsplit(settings.broker.url)
    if url.scheme in ("redis+socket", "unix"):
        _connect("unix", url.path, 0)
    else:
        _connect("tcp", url.hostname or "127.0.0.1", url.port or (5672 if url.scheme.startswith("amqp") else 6379))
    return "takes connections"


CHECKS: list[Check] = [database, store, disk, bucket, keys, dicom, broker]


async def livez(request: Request) -> Response:
    """Say that the process runs."""
    return JSONResponse({"alive": True}, headers={"Cache-Control": "no-store"})


async def readyz(request: Request) -> Response:
    """Say whether everything is ready, and if not, what is missing (503)."""
    at = door(request)
    report: dict[str, dict[str, object]] = {}
    for check in CHECKS:
        started = time.perf_counter()
        try:
            entry: dict[str, object] = {"ready": True, "detail": await in_thread(at.read, check, at.archive)}
        except ArchiveError as error:
            entry = {"ready": False, "detail": str(error)}
        except Exception as error:
            # Text of libraries may name hosts, users and files; the class says enough to look further.
            entry = {"ready": False, "detail": type(error).__name__}
        report[check.__name__] = {**entry, "duration_ms": round((time.perf_counter() - started) * 1000, 1)}
    ready = all(entry["ready"] for entry in report.values())
    return JSONResponse({"ready": ready, "checks": report}, 200 if ready else 503, headers={"Cache-Control": "no-store"})


def _connect(kind: str, host: str, port: int) -> None:
    try:
        if kind == "unix":
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(CONNECT_S)
                connection.connect(host)
        else:
            socket.create_connection((host, port), CONNECT_S).close()
    except OSError as error:
        raise Unavailable("does not answer") from error
