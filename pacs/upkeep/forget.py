"""Forget a study for good: its key first, so that no copy of any segment can be opened; then its rows, then its bytes.

What is to be done is noted before the first step, so that a forgetting that was cut short is finished by the next pass; when
all is done a signed certificate says so. Nothing here can reach a copy of the key ring that somebody keeps elsewhere.
"""

import json
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pacs.archive import Archive
from pacs.logs import get_logger
from pacs.model.errors import NotFound, Refused
from pacs.model.lifecycle import PROTECTED
from pacs.model.upkeep import Belongings
from pacs.store import certificate
from pacs.store.providers import sync_folder

log = get_logger(__name__)
FOLDER = "forgotten"


def belongings(archive: Archive, *, study_instance_uids: Sequence[str] = (), patient_id: str = "") -> list[Belongings]:
    """Return what would go: the dry run. Names are the archive's own (pseudonymous). Raises `NotFound`."""
    studies = [*study_instance_uids, *(archive.index.upkeep.studies_of_patient(patient_id) if patient_id else ())]
    found = [archive.index.upkeep.belongings(uid) for uid in dict.fromkeys(studies)]
    there = [one for one in found if one is not None]
    if not there:
        raise NotFound("there is no such study or patient; give the archive's own, pseudonymous UID or Patient ID")
    return there


def forget(archive: Archive, what: Sequence[Belongings], *, now: float | None = None, reason: str = "") -> Path:
    """Forget these studies and all that was made of them; returns where the signed certificate lies.

    Raises `Refused` if one of them is protected; then none is forgotten.
    """
    labels = archive.index.lifecycle.labels([one.study_instance_uid for one in what])
    for uid, borne in labels.items():
        if PROTECTED in borne:
            raise Refused(f"study {uid} is protected ({borne[PROTECTED]}); `pacs protect {uid} --remove` lets it go")
    folder = _folder(archive)
    plan = folder / f"{uuid.uuid4()}.plan"
    why = {"reason": reason} if reason else {}
    _write(plan, {"asked_at": _utc(now or time.time()), **why, "studies": [_counts(one) for one in what]})
    return _carry_out(archive, plan)


def resume(archive: Archive) -> list[Path]:
    """Finish what was cut short; returns the certificates."""
    return [_carry_out(archive, plan) for plan in sorted(_folder(archive).glob("*.plan"))]


def certificates(archive: Archive) -> list[dict[str, Any]]:
    """Return every certificate there is, each with `genuine`: whether its signature is good."""
    key = certificate.public_key(archive.identity)
    found = []
    for path in sorted(_folder(archive).glob("*.json")):
        document = json.loads(path.read_text(encoding="ascii"))
        found.append({**document, "path": str(path), "genuine": certificate.is_genuine(document, key)})
    return found


def _carry_out(archive: Archive, plan: Path) -> Path:
    asked = json.loads(plan.read_text(encoding="ascii"))
    for study in asked["studies"]:
        uid = study["study_instance_uid"]
        archive.ring.forget(uid)
        places = archive.index.upkeep.forget(uid, asked.get("reason", ""))
        for place in places:
            archive.objects.delete(place)
        if archive.vault is not None:
            archive.vault.forget(uid)
        log.info("study_forgotten", study_instance_uid=uid, records=len(places))
    statement = {
        "mini-pacs-forgotten": 1,
        **asked,
        "done_at": _utc(time.time()),
        "method": "study keys destroyed, rows removed, records given up",
        "remains": "quarantined objects; copies of the key ring outside this archive, until they are overwritten",
    }
    document = certificate.sign(archive.identity, statement)
    path = plan.with_suffix(".json")
    _write(path, document)
    plan.unlink()
    sync_folder(plan.parent)
    return path


def _counts(one: Belongings) -> dict[str, Any]:
    counts = asdict(one)
    counts.pop("patient_id")
    return counts


def _folder(archive: Archive) -> Path:
    folder = archive.settings.home / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _write(path: Path, document: dict[str, Any]) -> None:
    temporary = path.with_suffix(".part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        json.dump(document, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def _utc(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
