"""Carry retention rules out: first the list of what would go, then forgetting, study by study, with a certificate a rule.

What is protected stays whatever a rule says; what storage commitment was given for stays unless the rule names it. Each
study is judged again right before it goes.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pacs.archive import Archive
from pacs.lifecycle import DAY_S, RetentionRule, retention_rules
from pacs.logs import get_logger
from pacs.model.lifecycle import LivingStudy
from pacs.upkeep import forget

log = get_logger(__name__)
_FEW = 10


@dataclass(frozen=True, slots=True)
class Due:
    """A study that a rule names; `kept_by` says why it stays all the same, "" if it goes."""

    rule: str
    study: LivingStudy
    kept_by: str


def due(archive: Archive, *, now: float | None = None, rule: str = "", automatic: bool = False) -> list[Due]:
    """Return what the rules (the one of this name, the automatic ones) would forget, and what keeps some of it: the dry run.

    The first rule that would forget a study stands for all; one that it is kept from, only where no other forgets it.
    """
    moment = now if now is not None else time.time()
    rules = [one for one in retention_rules(archive.settings.store.retain) if rule in ("", one.name)]
    rules = [one for one in rules if one.automatic or not automatic]
    if not rules:
        return []
    youngest = min(max(one.days, 1.0) for one in rules)
    found = []
    for study in archive.index.lifecycle.studies(moment - youngest * DAY_S):
        named = [Due(one.name, study, one.kept_by(study)) for one in rules if one.due(study, moment)]
        found += sorted(named, key=lambda one: bool(one.kept_by))[:1]
    return found


def run(archive: Archive, what: Sequence[Due], *, now: float | None = None) -> list[Path]:
    """Forget what is due and not kept; returns the certificates, one a rule."""
    moment = now if now is not None else time.time()
    rules = {one.name: one for one in retention_rules(archive.settings.store.retain)}
    certificates = []
    for name in dict.fromkeys(one.rule for one in what if not one.kept_by):
        going = [one.study.study_instance_uid for one in what if one.rule == name and not one.kept_by]
        still = [uid for uid in going if _is_still(archive, rules[name], uid, moment)]
        belongings = [one for uid in still if (one := archive.index.upkeep.belongings(uid)) is not None]
        if belongings:
            certificates.append(forget.forget(archive, belongings, reason=f"retention rule {name}"))
            log.info("retention_carried_out", rule=name, count=len(belongings))
    return certificates


def by_itself(archive: Archive, *, now: float | None = None) -> list[Path]:
    """Carry out the automatic rules; nothing goes where they name more than `store.retain_most` of all studies.

    A wrong rule or a wrong clock would otherwise empty the archive: then somebody must say so (`pacs retention run`).
    """
    what = [one for one in due(archive, now=now, automatic=True) if not one.kept_by]
    if not what:
        return []
    most = max(_FEW, int(archive.settings.store.retain_most * archive.index.lifecycle.count()))
    if len(what) > most:
        log.error("retention_refused", count=len(what), limit=most)
        return []
    return run(archive, what, now=now)


def _is_still(archive: Archive, rule: RetentionRule, study_instance_uid: str, now: float) -> bool:
    studies = archive.index.lifecycle.studies(now, study_instance_uid)
    return any(rule.due(one, now) and not rule.kept_by(one) for one in studies)
