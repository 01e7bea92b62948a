"""Instance Availability Notification as SCU: peers that want it are told what is complete and can be had (PS3.4 Annex R).

A notification is made in the transaction in which a study became complete or a job ended, and sent by this thread until the
peer takes it or the tries are used up. It names what is there when it is sent, under the UIDs that the peer gets to see.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from pacs.archive import Archive
from pacs.dimse import contexts, datasets, due, messages, requestor, status
from pacs.dimse.lane import AssociationLost
from pacs.dimse.messages import Command
from pacs.logs import get_logger
from pacs.model.errors import ArchiveError, NotFound, NotUnderstood
from pacs.model.instance import Stored
from pacs.model.peer import Peer
from pacs.model.performed import Notification
from pacs.model.waiting import wait_s
from pacs.reidentify import Originals
from pacs.workflow.attributes import Attributes, make

log = get_logger(__name__)
_DUPLICATE = 0x0111


class Herald:
    """Sends what is due."""

    def __init__(self, archive: Archive, clock: Callable[[], float] = time.time) -> None:
        self._archive = archive
        self._clock = clock

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set."""
        due.keep_on(self.turn, stop, lambda: stop.wait(1.0), failed="notification_failed")

    def turn(self) -> int:
        """Send what is due now; returns how many notifications were tried."""
        return due.turn(self._archive.index.notifications, self._try, self._clock)

    def _try(self, row: Notification) -> None:
        notifications, settings = self._archive.index.notifications, self._archive.settings.dicom
        try:
            count = self._send(row)
        except (ArchiveError, AssociationLost) as error:
            log.warning("notification_not_taken", ae_title=row.ae_title, attempt=row.attempts + 1, error=type(error).__name__)
            if row.attempts + 1 >= settings.commitment_attempts:
                notifications.end(row, "given up")
                log.error("notification_given_up", ae_title=row.ae_title, attempt=row.attempts + 1)
                return
            notifications.later(row, self._clock() + wait_s(settings.commitment_retry_s, row.attempts + 1))
            return
        notifications.end(row, "sent")
        log.info("notification_sent", ae_title=row.ae_title, study_instance_uid=row.study_instance_uid, count=count)

    def _send(self, row: Notification) -> int:
        """Send one N-CREATE (PS3.4 R.3.1); returns how many instances it names. Raises if it is not taken."""
        archive, settings, uid = self._archive, self._archive.settings.dicom, contexts.AVAILABILITY
        peer = archive.index.peers.get(row.ae_title)
        if peer is None:
            raise NotFound("the peer is no longer configured")
        told = archive.index.locate(
            study_instance_uids=[row.study_instance_uid], series_instance_uids=[one for one in row.series.split("\\") if one]
        )
        if not told:
            # Forgotten since, or taken back: there is nothing to tell any more.
            return 0
        association = requestor.associate_with(settings, peer, [(uid, contexts.MESSAGE_SYNTAXES)])
        try:
            ways = requestor.accepted(association, uid)
            if not ways:
                raise NotUnderstood("the peer takes no notifications of availability")
            syntax, context_id = next(iter(ways.items()))
            values: dict[int, int | str] = {
                messages.AFFECTED_SOP_CLASS_UID: uid,
                messages.AFFECTED_SOP_INSTANCE_UID: row.sop_instance_uid,
                messages.MESSAGE_ID: 1,
            }
            body = datasets.encode(self._content(peer, told), explicit=syntax == contexts.EXPLICIT_LITTLE_ENDIAN)
            association.dimse.send(context_id, messages.encode(Command.N_CREATE_RQ, values, data_set=True), [body])
            code = requestor.response(association, Command.N_CREATE_RSP, 1).status
            # A peer that knows this notification already had it from a try whose answer was lost.
            if code not in (status.SUCCESS, _DUPLICATE) and not status.is_warning(code):
                raise NotUnderstood(f"the peer answered status {code:04X}")
        except BaseException:
            association.terminate()
            raise
        association.release_and_wait()
        return len(told)

    def _content(self, peer: Peer, told: list[Stored]) -> Attributes:
        """Return the notification (PS3.4 Table R.3.2-1)."""
        archive = self._archive
        originals = Originals(archive) if peer.identity == "original" and archive.vault is not None else None
        series: dict[str, list[dict[str, Any]]] = {}
        study = ""
        for stored in told:
            named = stored.key if originals is None else originals.key(stored)
            study = named.study_instance_uid
            series.setdefault(named.series_instance_uid, []).append(
                {
                    "ReferencedSOPClassUID": stored.sop_class_uid,
                    "ReferencedSOPInstanceUID": named.sop_instance_uid,
                    "InstanceAvailability": "ONLINE",
                    "RetrieveAETitle": archive.settings.dicom.ae_title,
                }
            )
        performed = [] if originals else archive.index.performed.of_study(told[0].key.study_instance_uid)
        return make(
            {
                "ReferencedPerformedProcedureStepSequence": [
                    {
                        "ReferencedSOPClassUID": contexts.PERFORMED_STEP,
                        "ReferencedSOPInstanceUID": one.step_uid,
                        "PerformedWorkitemCodeSequence": None,
                    }
                    for one in performed
                ],
                "StudyInstanceUID": study,
                "ReferencedSeriesSequence": [
                    {"SeriesInstanceUID": uid, "ReferencedSOPSequence": instances} for uid, instances in series.items()
                ],
            }
        )
