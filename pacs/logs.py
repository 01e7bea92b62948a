"""Events with names and allow-listed values, never patients.

`get_logger(__name__).info("instance_stored", sop_instance_uid=…)` writes one JSON line (or a short text line on a terminal).
A name that is not in `ALLOWED` raises: what cannot be named cannot leak. Exceptions are logged by class and place, never by
message, because messages of libraries quote values (pydicom does).
"""

import json
import logging
import sys
import time
import traceback
from contextvars import ContextVar
from typing import Any

ALLOWED = frozenset(
    """
    ae_title aet address attempt backlog bytes_free called_ae_title calling_ae_title count duration_ms error evidence exit_code
    failed frames generation home host http_status instances job_id job_state key_id kind level limit location_container
    message_id method object_id operation origin outcome path_name pending pid place policy port priority process processor
    progress quarantine_id queue quota reason records retry_in_s role route rule segment series_instance_uid signal size_bytes
    sop_class_uid sop_instance_uid state status study_instance_uid sub_operations table timeout_s transfer_syntax_uid version
    waited_s warning worker
    """.split()
)

_bound: ContextVar[dict[str, Any] | None] = ContextVar("bound", default=None)


def bind(**values: Any) -> None:
    """Add values to every event of this thread or task (an association, a request, a job)."""
    _allow(values)
    _bound.set({**(_bound.get() or {}), **values})


class Logger:
    """A thin face over `logging` that takes an event name and named values only."""

    def __init__(self, name: str) -> None:
        self._log = logging.getLogger(name)

    def debug(self, event: str, **values: Any) -> None:
        self._emit(logging.DEBUG, event, values)

    def info(self, event: str, **values: Any) -> None:
        self._emit(logging.INFO, event, values)

    def warning(self, event: str, **values: Any) -> None:
        self._emit(logging.WARNING, event, values)

    def error(self, event: str, **values: Any) -> None:
        self._emit(logging.ERROR, event, values)

    def exception(self, event: str, error: BaseException, **values: Any) -> None:
        """Log an unexpected error by its class and the places it passed, without its message."""
        frames = traceback.extract_tb(error.__traceback__)
        place = " < ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in reversed(frames[-6:]))
        self._emit(logging.ERROR, event, {**values, "error": type(error).__name__, "place": place})

    def _emit(self, level: int, event: str, values: dict[str, Any]) -> None:
        _allow(values)
        if self._log.isEnabledFor(level):
            self._log.log(level, event, extra={"values": {**(_bound.get() or {}), **values}})


def get_logger(name: str) -> Logger:
    """Return the logger of a module."""
    return Logger(name)


def configure(level: str = "info", process: str = "") -> None:
    """Send our events to stderr; other libraries only their warnings, by logger name and without their text."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("pacs", "processors"):
        logging.getLogger(name).setLevel(level.upper())
    logging.captureWarnings(True)


def _allow(values: dict[str, Any]) -> None:
    unknown = values.keys() - ALLOWED
    if unknown:
        raise ValueError(f"not in the allow-list of pacs/logs.py: {', '.join(sorted(unknown))}")


class _Formatter(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        values = getattr(record, "values", None)
        line: dict[str, Any] = {"time": stamp, "level": record.levelname.lower(), "process": self._process}
        if values is None:
            # Text of libraries may quote data set values; only where it came from is safe to keep.
            line |= {"event": "library_message", "logger": record.name, "place": f"{record.filename}:{record.lineno}"}
            if record.exc_info and record.exc_info[0] is not None:
                line["error"] = record.exc_info[0].__name__
        else:
            line |= {"event": record.getMessage(), **values}
        return json.dumps(line, default=str, ensure_ascii=False)
