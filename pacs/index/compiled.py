"""A statement compiled once, and run on the driver's own connection: the few that every arrival needs, on SQLite.

The statement, its types and its names stay SQLAlchemy's; only its way to the driver is shorter.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError

Values = Mapping[str, Any]


class Compiled:
    """The text of a statement, where its parameters go, and how values change on the way."""

    def __init__(self, statement: Any, dialect: sa.Dialect, given: Values) -> None:
        """Compile `statement`; an INSERT is given the names of the columns that it fills by `given`."""
        names = list(given) if isinstance(statement, sa.Insert) else None
        compiled: Any = statement.compile(dialect=dialect, column_keys=names)
        self._text: str = compiled.string
        self._names: list[str] = compiled.positiontup or []
        # Values that are part of the statement, like a limit.
        self._defaults: dict[str, Any] = dict(compiled.params)
        self._bind = [(name, compiled._bind_processors.get(name)) for name in self._names]
        self._returns_rows = isinstance(statement, sa.Select)
        processors = [one.type._cached_result_processor(dialect, None) for one in compiled._result_columns]
        self._results = [(at, change) for at, change in enumerate(processors) if change is not None]

    def run(self, driver: sqlite3.Connection, parameters: Values | Sequence[Values]) -> list[Any]:
        """Run it, for each of several sets of parameters; returns the rows of a SELECT. Raises SQLAlchemy's errors."""
        try:
            if not isinstance(parameters, Mapping):
                driver.executemany(self._text, [self._bound(one) for one in parameters]).close()
                return []
            cursor = driver.execute(self._text, self._bound(parameters))
            rows = cursor.fetchall()
            cursor.close()
        except sqlite3.IntegrityError as error:
            raise IntegrityError(self._text, None, error, hide_parameters=True) from error
        except sqlite3.Error as error:
            raise OperationalError(self._text, None, error, hide_parameters=True) from error
        return [self._changed(row) for row in rows] if self._results else rows

    def _bound(self, parameters: Values) -> tuple[Any, ...]:
        found = []
        for name, change in self._bind:
            value = parameters[name] if name in parameters else self._defaults[name]
            found.append(value if change is None else change(value))
        return tuple(found)

    def _changed(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        values = list(row)
        for at, change in self._results:
            values[at] = change(values[at])
        return tuple(values)
