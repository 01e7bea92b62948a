"""What the settings say of how long and how much is kept: retention rules, which are pure, and quotas, in the way in.

A rule is about whole studies, because a study's key is what can be destroyed. It is careful by construction: a condition must
hold for every series that was sent, a study without a date has no age, and nothing goes within a day of its last arrival.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

from pacs.dicom import conditions
from pacs.logs import get_logger
from pacs.model.errors import ConfigurationError, OutOfResources
from pacs.model.lifecycle import COMMITTED, PROTECTED, LivingStudy

log = get_logger(__name__)
DAY_S = 86400.0
GIB = 1 << 30
_LOOK_EVERY_S = 1.0
_COUNT_EVERY_S = 600.0
_RULE = {"name", "days", "study_days", "where", "label", "committed", "automatic"}
_QUOTA = {"name", "gb", "source", "policy"}
Usage = Mapping[tuple[str, str], int]
"""(source, policy) -> bytes."""


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """Which studies are forgotten, and when: `days` after their last arrival, `study_days` after their date, or after both.

    `committed`: also what storage commitment was given for. `automatic`: without anybody saying so each time.
    """

    name: str
    days: float = 0.0
    study_days: float = 0.0
    where: Mapping[str, Any] = field(default_factory=dict)
    label: Any = None
    committed: bool = False
    automatic: bool = False

    def due(self, study: LivingStudy, now: float) -> bool:
        """Tell whether the rule names this study; `kept_by` says what may keep it all the same."""
        if now - study.arrived_at < max(self.days, 1.0) * DAY_S:
            return False
        if self.study_days and not _age_days(study.study_date, now) >= self.study_days:
            return False
        if self.label is not None and not conditions.holds(self.label, list(study.labels)):
            return False
        return bool(study.series) and all(conditions.matches(self.where, one) for one in study.series)

    def kept_by(self, study: LivingStudy) -> str:
        """Return why a study that is due is kept, "" if nothing keeps it."""
        if PROTECTED in study.labels:
            return f"protected: {study.labels[PROTECTED]}"
        if COMMITTED in study.labels and not self.committed:
            return "storage commitment was given, and the rule does not say committed = true"
        return ""


def retention_rules(tables: Sequence[Mapping[str, Any]]) -> list[RetentionRule]:
    """Read the rules of `[[store.retain]]`. Raises `ConfigurationError`, which names the rule and what is wrong with it."""
    rules: list[RetentionRule] = []
    for number, table in enumerate(tables, 1):
        where = f"store.retain {table.get('name', number)}"
        name = _named(table, where, _RULE, rules)
        ages = [table.get(key, 0) for key in ("days", "study_days")]
        if not all(isinstance(age, int | float) and not isinstance(age, bool) and age >= 0 for age in ages) or not any(ages):
            raise ConfigurationError(f"{where}: needs days (since arrival) or study_days (since Study Date), above 0")
        try:
            if not isinstance(table.get("where", {}), Mapping):
                raise ValueError("where must be a table")
            for keyword, condition in table.get("where", {}).items():
                conditions.check(keyword, condition)
            if "label" in table:
                conditions.check_condition(table["label"])
        except ValueError as error:
            raise ConfigurationError(f"{where}: {error}") from error
        if not all(isinstance(table.get(key, False), bool) for key in ("committed", "automatic")):
            raise ConfigurationError(f"{where}: committed and automatic are true or false")
        rules.append(RetentionRule(**{**table, "name": name}))
    return rules


@dataclass(frozen=True, slots=True)
class Quota:
    """How much of what comes by some way, or under some policy, is kept; patterns as in a shell."""

    name: str
    size_bytes: int
    source: str = "*"
    policy: str = "*"

    def counts(self, source: str, policy: str) -> bool:
        """Tell whether what came so counts."""
        return fnmatchcase(source, self.source) and fnmatchcase(policy, self.policy)


def quotas(tables: Sequence[Mapping[str, Any]], whole_gb: float) -> list[Quota]:
    """Read `store.quota_gb` and `[[store.quotas]]`. Raises `ConfigurationError`."""
    if whole_gb < 0:
        raise ConfigurationError("store.quota_gb must not be negative")
    found = [Quota("archive", int(whole_gb * GIB))] if whole_gb else []
    for number, table in enumerate(tables, 1):
        where = f"store.quotas {table.get('name', number)}"
        name = _named(table, where, _QUOTA, found)
        size = table.get("gb")
        if not isinstance(size, int | float) or isinstance(size, bool) or size <= 0:
            raise ConfigurationError(f"{where}: needs gb, above 0")
        patterns = {key: table[key] for key in ("source", "policy") if key in table}
        if not patterns or not all(isinstance(one, str) and one for one in patterns.values()):
            raise ConfigurationError(f"{where}: needs source, policy or both; for the whole archive say store.quota_gb")
        found.append(Quota(name, int(size * GIB), **patterns))
    return found


class Quotas:
    """Refuses what would go beyond a quota, by what the index says is there.

    Records that have come since are added every second; every ten minutes all are counted, because some may have gone. So a
    quota is passed by what comes within a second, and heeds what was forgotten after ten minutes at the latest.
    """

    def __init__(
        self,
        rules: Sequence[Quota],
        warn: float,
        usage: Callable[[int], tuple[int, Usage]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rules = rules
        self._warn = warn
        self._usage = usage
        self._clock = clock
        self._lock = threading.Lock()
        self._looked_at = self._counted_at = self._warned_at = -_COUNT_EVERY_S
        self._last = 0
        self._used: dict[tuple[str, str], int] = {}

    def check(self, source: str, policy: str) -> None:
        """Raise `OutOfResources`, naming the quota, if what comes so is more than is to be kept."""
        rules = [one for one in self.rules if one.counts(source, policy)]
        if not rules:
            return
        used = self._present()
        for rule in rules:
            size = _sum(rule, used)
            if size >= rule.size_bytes:
                raise OutOfResources(f"quota {rule.name}: {size / GIB:.2f} of {rule.size_bytes / GIB:.2f} GiB are in use")
            if size >= self._warn * rule.size_bytes and self._clock() - self._warned_at >= _COUNT_EVERY_S:
                self._warned_at = self._clock()
                log.warning("quota_nearly_used", quota=rule.name, size_bytes=size, limit=rule.size_bytes)

    def state(self) -> list[tuple[Quota, int, bool]]:
        """Return each quota, the bytes in use, counted now, and whether that is worth a warning."""
        used = self._usage(0)[1]
        return [(one, size, size >= self._warn * one.size_bytes) for one in self.rules for size in (_sum(one, used),)]

    def _present(self) -> Usage:
        with self._lock:
            now = self._clock()
            if now - self._counted_at >= _COUNT_EVERY_S:
                self._last, used = self._usage(0)
                self._used, self._counted_at = dict(used), now
            elif now - self._looked_at >= _LOOK_EVERY_S:
                self._last, more = self._usage(self._last)
                for key, size in more.items():
                    self._used[key] = self._used.get(key, 0) + size
            else:
                return self._used
            self._looked_at = now
            return self._used


def _sum(rule: Quota, used: Usage) -> int:
    return sum(size for (source, policy), size in used.items() if rule.counts(source, policy))


def _named(table: Mapping[str, Any], where: str, known: set[str], before: Sequence[RetentionRule | Quota]) -> str:
    unknown = sorted(table.keys() - known)
    if unknown:
        raise ConfigurationError(f"{where}: unknown setting {unknown[0]}; there are {', '.join(sorted(known))}")
    name = table.get("name")
    if not isinstance(name, str) or not name.strip() or name in {one.name for one in before}:
        raise ConfigurationError(f"{where}: needs a name of its own")
    return name


def _age_days(study_date: str, now: float) -> float:
    """Return the age of a Study Date (DA, as de-identification left it); -1 where there is none."""
    try:
        began = datetime.strptime(study_date, "%Y%m%d").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return -1.0
    return (now - began) / DAY_S
