"""Open segment files for reading and giving up, shared by threads."""

import os
import re
import threading
from collections import OrderedDict
from pathlib import Path

from pacs.model.errors import NotFound

_OPEN_FILES = 64
NAME = re.compile(r"(?P<writer>[A-Za-z0-9_.-]{1,64})-(?P<number>[0-9]{8})\.seg")


class Readers:
    """Open files for reading and for giving up, the least lately used closed first; safe for threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._open: OrderedDict[str, File] = OrderedDict()

    def file(self, container: str, *, writing: bool = False) -> "File":
        """Return the open file of a segment, to be used in a `with`. Raises `NotFound` if there is none."""
        if not NAME.fullmatch(container):
            raise NotFound(f"there is no segment {container!r}")
        if writing:
            return File(self._open_file(container, os.O_RDWR)).taken(last=True)
        with self._lock:
            known = self._open.get(container)
            if known is None:
                known = self._open[container] = File(self._open_file(container, os.O_RDONLY))
                while len(self._open) > _OPEN_FILES:
                    self._open.popitem(last=False)[1].retire()
            self._open.move_to_end(container)
            return known.taken()

    def forget(self, container: str) -> None:
        """Close one file as soon as nobody reads it."""
        with self._lock:
            file = self._open.pop(container, None)
            if file is not None:
                file.retire()

    def forget_removed(self) -> None:
        """Close those that have no name any more."""
        with self._lock:
            removed = [name for name, file in self._open.items() if file.is_removed()]
        for name in removed:
            self.forget(name)

    def close(self) -> None:
        """Close every file as soon as nobody reads it."""
        with self._lock:
            for file in self._open.values():
                file.retire()
            self._open.clear()

    def _open_file(self, container: str, flags: int) -> int:
        try:
            return os.open(self._path / container, flags | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotFound(f"there is no segment {container!r}") from error


class File:
    """A descriptor that is closed when it is retired and its last user has gone."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._retired = False
        self._users = 0

    def __enter__(self) -> int:
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            self._close_if_done()

    def taken(self, *, last: bool = False) -> "File":
        """Count one more user; with `last` there will be no other."""
        with self._lock:
            self._users += 1
            self._retired = self._retired or last
        return self

    def retire(self) -> None:
        """Close as soon as nobody uses it."""
        with self._lock:
            self._retired = True
            self._close_if_done()

    def is_removed(self) -> bool:
        """Tell whether the file has no name any more."""
        with self._lock:
            return self._descriptor >= 0 and os.fstat(self._descriptor).st_nlink == 0

    def _close_if_done(self) -> None:
        if self._retired and self._users <= 0 and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
