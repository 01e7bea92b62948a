"""A file that is read again when it changes; what is wrong with it is logged once, and what was read before stays in force."""

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from pacs.logs import get_logger
from pacs.model.errors import ConfigurationError

log = get_logger(__name__)
T = TypeVar("T")


class Watched(Generic[T]):
    """The contents of one file as `read` returns them, given whether it is there. `read` raises `ConfigurationError`."""

    def __init__(self, path: Path, read: Callable[[bool], tuple[T, ...]]) -> None:
        self._path = path
        self._read = read
        self._seen: tuple[int, int] | None = None

    def read(self) -> tuple[T, ...]:
        """Read it now. Raises `ConfigurationError`."""
        self._seen = self._stamp()
        return self._read(self._seen is not None)

    def changed(self) -> tuple[T, ...] | None:
        """Return the new contents; None where nothing changed, or the file is wrong (which is logged once)."""
        if self._stamp() == self._seen:
            return None
        try:
            found = self.read()
        except ConfigurationError as error:
            log.error("rules_refused", reason=str(error))
            return None
        log.info("rules_read", count=len(found), path_name=self._path.name)
        return found

    def _stamp(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size
